"""A patch embedding becomes one operator that writes tokens."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.specs import Patches
from gsb_tvm.passes.fuse_patches import FusePatches
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators
from tests.passes.graphs import bindings, const, quarters

IMAGE = (2, 3, 8, 12)
COLUMNS = 5
TOKENS = 6


def embedding(
    e,
    image,
    *,
    weight=None,
    bias=True,
    prefix=2,
    position=True,
    patch=(4, 4),
    order=(0, 2, 1),
    **conv,
):
    """Tokens of an image as exporters write them; sums of quarters are exact in any order."""
    weight = quarters(COLUMNS, 3, *patch) if weight is None else weight
    tokens = e(op.nn.conv2d(image, const(weight), **{"strides": list(patch), **conv}))
    if bias:
        tokens = e(op.add(tokens, const(quarters(1, COLUMNS, 1, 1, number=1))))
    batch, columns, height, width = ops.shape_of(tokens)
    tokens = e(op.reshape(tokens, (batch, columns, height * width)))
    tokens = e(op.permute_dims(tokens, list(order)))
    if prefix:
        rows = np.repeat(quarters(1, prefix, columns, number=2), batch, axis=0)
        parts = [const(rows[:, i : i + 1]) for i in range(prefix)]
        tokens = e(op.concat([*parts, tokens], 1))
    if position:
        shape = (1, height * width + prefix, columns)
        tokens = e(op.add(tokens, const(quarters(*shape, number=3))))
    return tokens


def network(**options):
    return module_of({"image": IMAGE}, lambda e, x: e(op.tanh(embedding(e, x, **options))))


def fused(**options):
    after = assert_rewrites(FusePatches(), network(**options), inputs=[quarters(*IMAGE, number=9)])
    assert operators(after)["gsb.patches"] >= 1
    return ops.spec_of(bindings(after, "gsb.patches")[-1])


def test_a_whole_embedding():
    assert fused() == Patches(
        2, 3, (8, 12), (4, 4), COLUMNS, lattice=True, bias=True, position=True, prefix=2
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"bias": False}, {"bias": False, "position": True, "prefix": 2}),
        ({"prefix": 0}, {"bias": True, "position": True, "prefix": 0}),
        ({"position": False}, {"bias": True, "position": False, "prefix": 2}),
        ({"prefix": 0, "position": False}, {"bias": True, "position": False, "prefix": 0}),
    ],
)
def test_parts_of_one(options, expected):
    spec = fused(**options)
    assert {name: getattr(spec, name) for name in expected} == expected


def test_a_weight_that_is_no_lattice_stays_float():
    weight = np.random.default_rng(0).standard_normal((COLUMNS, 3, 4, 4)).astype(np.float32)
    after = FusePatches()(network(weight=weight))
    spec = ops.spec_of(bindings(after, "gsb.patches")[-1])
    assert not spec.lattice


def test_what_does_not_fill_a_patch_is_left_out():
    assert fused(patch=(3, 5), weight=quarters(COLUMNS, 3, 3, 5)).grid == (2, 2)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 2]},
        {"padding": [1, 1, 1, 1]},
        {"dilation": [2, 2], "strides": [4, 4]},
        {"order": (0, 1, 2)},
    ],
    ids=str,
)
def test_leaves_alone(options):
    assert_leaves_alone(FusePatches(), network(prefix=0, position=False, **options))


def test_leaves_a_single_column_alone():
    weight = quarters(1, 3, 4, 4)
    assert_leaves_alone(FusePatches(), network(weight=weight, bias=False, prefix=0, position=False))


def test_leaves_a_live_weight_alone():
    def build(e, image, weight):
        tokens = e(op.nn.conv2d(image, weight, strides=[4, 4]))
        tokens = e(op.reshape(tokens, (2, COLUMNS, TOKENS)))
        return e(op.permute_dims(tokens, [0, 2, 1]))

    before = module_of({"image": IMAGE, "weight": (COLUMNS, 3, 4, 4)}, build)
    assert_leaves_alone(FusePatches(), before)


def test_tokens_that_differ_between_images_are_not_joined():
    def build(e, image):
        tokens = embedding(e, image, prefix=0, position=False)
        return e(op.concat([const(quarters(2, 1, COLUMNS, number=2)), tokens], 1))

    after = FusePatches()(module_of({"image": IMAGE}, build))
    assert operators(after)["relax.concat"] == 1


def test_tokens_that_others_read_stay():
    def build(e, image):
        tokens = embedding(e, image, bias=False, prefix=0, position=False)
        moved = e(op.add(tokens, const(quarters(1, TOKENS, COLUMNS, number=3))))
        return e(op.multiply(moved, tokens))

    after = FusePatches()(module_of({"image": IMAGE}, build))
    relax.analysis.well_formed(after)
    assert not ops.spec_of(bindings(after, "gsb.patches")[-1]).position
    assert operators(after)["relax.add"] == 1
