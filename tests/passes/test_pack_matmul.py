"""Products of two live superposed tensors, one packed product for all pairs of planes."""

import numpy as np
import pytest
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes.pack_matmul import PackMatmul
from gsb_tvm.testing import (
    assert_leaves_alone,
    assert_rewrites,
    module_of,
    operators,
    run_module,
)
from tests.passes.graphs import (
    Attention,
    K,
    bindings,
    const,
    gsb_attention,
    gsb_values,
    quarters,
    recognised,
    two_level,
)


def packed(before, *inputs):
    after = assert_rewrites(PackMatmul(), before, inputs=inputs)
    assert operators(after)["gsb.matmul"] == 0
    return [ops.spec_of(call) for call in bindings(after, "gsb.batch_matmul")]


@pytest.mark.parametrize("k", K)
def test_signs_times_signs_of_every_width(k):
    def build(e, x, y):
        right = e(op.permute_dims(e(op.sign(y)), [0, 2, 1]))
        return e(op.matmul(e(op.multiply(e(op.sign(x)), const(0.5))), right))

    before = recognised({"x": (2, 3, k), "y": (2, 4, k)}, build)
    (spec,) = packed(before, quarters(2, 3, k), quarters(2, 4, k, number=1))
    assert (spec.a, spec.b) == (Rows(2, 3, 1, k), Rows(2, 4, 1, k))


@pytest.mark.parametrize("shape", [(5, 33), (1, 1, 33), (4, 2, 7, 33)])
def test_any_number_of_leading_axes(shape):
    def build(e, x):
        axes = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        turned = e(ops.sign(e(op.permute_dims(x, axes)), 1))
        return e(ops.matmul([e(ops.sign(x, -1))], [const(1)], [turned], [const(2)]))

    (spec,) = packed(module_of({"x": shape}, build), quarters(*shape))
    assert spec.a_kinds == spec.b_kinds == (Kind.SIGN,)
    assert spec.a.batch == np.prod(shape[:-2])


@pytest.mark.parametrize(("batch", "tokens", "width"), [(1, 5, 24), (4, 7, 64)])
def test_superposed_attention_and_values(batch, tokens, width):
    shapes = {"p": (batch, 2, tokens, tokens), "v": (batch, 2, tokens, width)}
    before = recognised(shapes, lambda e, p, v: e(op.matmul(gsb_attention(e, p), gsb_values(e, v))))
    (spec,) = packed(before, np.abs(quarters(*shapes["p"])), quarters(*shapes["v"], number=1))
    assert spec.a_kinds == (Kind.MASK,) * 3
    assert spec.b_kinds == (Kind.MASKED,) * 3


def nested_masks(e, p):
    """BHViT: clip(round(3 p), 0, 3) times a scale."""
    levels = e(op.clip(e(op.round(e(op.multiply(p, const(3))))), 0, 3))
    return e(op.multiply(levels, const(0.25)))


def test_nested_masks_with_bounds_that_are_numbers():
    shape = (2, 2, 5, 5)

    def build(e, p, v):
        return e(op.matmul(nested_masks(e, p), e(op.sign(v))))

    before = recognised({"p": shape, "v": (2, 2, 5, 24)}, build)
    # Ties of 3 p lie at 1/6, 1/2 and 5/6: a grid of sixths holds all three.
    p = (np.random.default_rng(0).integers(0, 7, shape) / 6).astype(np.float32)
    (spec,) = packed(before, p, quarters(2, 2, 5, 24))
    assert spec.a_kinds == (Kind.MASK,) * 3


def test_both_products_of_an_attention_that_is_not_gsbs():
    options = Attention(v_scales=(0.5,))
    before = options.module(superpose=nested_masks)
    specs = packed(before, *options.arrays())
    assert len(specs) == 2


def test_products_with_weights_stay():
    build = lambda e, x: e(op.matmul(e(op.sign(x)), const(two_level(33, 7))))  # noqa: E731
    assert_leaves_alone(PackMatmul(), recognised({"x": (2, 3, 33)}, build))


HEADS, ROWS = 2.0 ** np.arange(2).reshape(2, 1, 1), 2.0 ** np.arange(3)[:, None]
COLUMNS = 2.0 ** np.arange(4)


@pytest.mark.parametrize(
    ("a_scale", "b_scale"), [(HEADS, HEADS), (HEADS, 0.5), (ROWS, COLUMNS), (2.0, COLUMNS)]
)
def test_scales_per_head_row_or_column_follow_the_product(a_scale, b_scale):
    def build(e, x, y):
        a, b = (
            e(op.multiply(e(op.sign(x)), const(a_scale))),
            op.multiply(e(op.sign(y)), const(b_scale)),
        )
        return e(op.matmul(a, e(b)))

    before = recognised({"x": (2, 2, 3, 33), "y": (2, 2, 33, 4)}, build)
    packed(before, quarters(2, 2, 3, 33), quarters(2, 2, 33, 4, number=1))


def test_nested_masks_with_a_scale_per_head():
    """BHViT; the sum over masks is an integer, so that sums that cancel are exactly 0."""
    shape, scale = (2, 2, 5, 5), np.float32([0.1, 0.7]).reshape(2, 1, 1)

    def build(e, p, v):
        levels = e(op.clip(e(op.round(e(op.multiply(p, const(3))))), 0, 3))
        o = e(op.matmul(e(op.multiply(levels, const(scale))), e(op.sign(v))))
        return e(op.sign(o))

    before = recognised({"p": shape, "v": (2, 2, 5, 24)}, build)
    after = PackMatmul()(before)
    p, v = np.abs(quarters(*shape)), quarters(2, 2, 5, 24)
    exact = np.clip(np.rint(3 * p), 0, 3).astype(int) @ np.sign(v).astype(int)
    assert (exact == 0).any()
    np.testing.assert_array_equal(run_module(after, p, v)[0], np.sign(exact))


def test_scales_of_planes_that_have_no_common_factor_stay():
    def build(e, x, y):
        a = [e(op.multiply(e(ops.mask(x, const(b), "gt")), const(1))) for b in (0, 0.5)]
        return e(ops.matmul(a, [const(HEADS), const(HEADS[::-1])], [e(ops.sign(y, 1))], [const(1)]))

    before = module_of({"x": (2, 2, 3, 33), "y": (2, 2, 33, 4)}, build)
    assert_leaves_alone(PackMatmul(), before)


def test_leading_axes_that_broadcast_stay():
    def build(e, x, y):
        return e(op.matmul(e(op.sign(x)), e(op.sign(y))))

    before = recognised({"x": (2, 3, 33), "y": (33, 4)}, build)
    assert operators(before)["gsb.matmul"] == 1
    assert_leaves_alone(PackMatmul(), before)
