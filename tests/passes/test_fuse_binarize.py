"""The shift, the norm and attention's product before a comparison become part of it.

Norms take their sums in another order: a bit flips where u lies within 1e-6 of its bound, and no u
of these seeds does. Everything else is exact.
"""

import numpy as np
import pytest
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Binarize, Compare, Kind, ValuePlanes
from gsb_tvm.passes.fuse_binarize import FuseBinarize
from gsb_tvm.passes.pack_attention import PackAttention
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.passes.simplify_views import SimplifyViews
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators
from tests.passes.graphs import Attention, K, bindings, const, quarters, recognised, through
from tests.passes.graphs import two_level as weight

COMPARES = [Compare(Kind.SIGN, 0.25, strict=False), Compare(Kind.MASK, -0.5), Compare(Kind.MASKED)]
NAMES = ["sign", "mask", "masked"]


def vector(k, number):
    return const(quarters(k, number=number))


def shift(e, x, number=0):
    return e(op.add(x, vector(ops.shape_of(x)[-1], number)))


def norm(e, x, axes=(-1,)):
    shape = [ops.shape_of(x)[axis] for axis in axes]
    gamma, beta = (const(quarters(*shape, number=number) + 0.3) for number in (3, 4))
    return e(op.nn.layer_norm(x, gamma, beta, axes=list(axes), epsilon=1e-5))


def binarized(before, compare=COMPARES[2], k=33):
    def build(e, x):
        spec = Binarize(Rows(2, 3, 1, k), compare, norm=False, shift=False)
        return e(ops.packed(spec, [before(e, x)]))

    return module_of({"x": (2, 3, k)}, build)


def fused(module, *inputs, name="gsb.binarize"):
    after = assert_rewrites(FuseBinarize(), module, inputs=inputs)
    return ops.spec_of(bindings(after, name)[-1]), operators(after)


def noise(*shape, number=0):
    return np.random.default_rng(number).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("k", K)
@pytest.mark.parametrize("compare", COMPARES, ids=NAMES)
def test_shift(compare, k):
    spec, left = fused(binarized(shift, compare, k), quarters(2, 3, k, number=9))
    assert (spec.shift, spec.norm) == (True, False)
    assert set(left) == {"gsb.binarize"}


@pytest.mark.parametrize("k", K)
def test_norm_and_shift(k):
    spec, left = fused(binarized(lambda e, x: shift(e, norm(e, x)), k=k), noise(2, 3, k))
    assert (spec.shift, spec.norm, spec.eps) == (True, True, np.float32(1e-5))
    assert set(left) == {"gsb.binarize"}


def test_norm_alone():
    spec, left = fused(binarized(norm), noise(2, 3, 33))
    assert (spec.shift, spec.norm) == (False, True)
    assert set(left) == {"gsb.binarize"}


def test_a_scalar_shift_is_one_for_every_feature():
    fused(binarized(lambda e, x: e(op.add(x, const(0.25)))), quarters(2, 3, 33))


def test_the_second_shift_stays_a_float_step():
    spec, left = fused(binarized(lambda e, x: shift(e, shift(e, x), 1)), quarters(2, 3, 33))
    assert spec.shift
    assert left["relax.add"] == 1


def test_a_shift_before_a_norm_stays_before_it():
    """And a second run must not take it for one after the norm."""
    spec, left = fused(binarized(lambda e, x: norm(e, shift(e, x))), noise(2, 3, 33))
    assert (spec.norm, spec.shift) == (True, False)
    assert left["relax.add"] == 1


def live(e, x):
    return e(op.add(x, e(op.mean(x, axis=[2], keepdims=True))))


def per_token(e, x):
    return e(op.add(x, const(quarters(3, 1))))


def subtracted(e, x):
    return e(op.subtract(x, vector(33, 0)))


def over_tokens(e, x):
    return norm(e, x, axes=(1, 2))


def live_scale(e, x):
    gamma = e(op.mean(x, axis=[0, 1]))
    return e(op.nn.layer_norm(x, gamma, vector(33, 1), axes=[-1]))


@pytest.mark.parametrize("before", [live, per_token, subtracted, over_tokens, live_scale, None])
def test_what_is_no_shift_or_norm_of_features_stays(before):
    assert_leaves_alone(FuseBinarize(), binarized(before or (lambda e, x: x)))


def test_value_planes_take_a_shift():
    spec = ValuePlanes(Rows(2, 3, 1, 33), Kind.MASKED, shift=False, ratios=(0.7, 0.9))
    module = module_of({"x": (2, 3, 33)}, lambda e, x: e(ops.packed(spec, [shift(e, x)])))
    found, left = fused(module, quarters(2, 3, 33), name="gsb.value_planes")
    assert found.shift
    assert set(left) == {"gsb.value_planes"}


def attention(move, heads=2, twice=False):
    options = Attention(heads=heads, v_scales=(0.5,))
    features = heads * 24

    def build(e, *qkv):
        o = options.build(e, *qkv)
        u = shift(e, o) if move else o
        y = e(op.matmul(e(op.sign(u)), const(weight(features, features))))
        return e(op.add(y, o)) if twice else y

    passes = (PackAttention(), PackDense(resolve("llvm -mtriple=x86_64-linux-gnu")))
    return options, through(recognised(options.inputs, build), *passes, SimplifyViews())


@pytest.mark.parametrize("move", [False, True])
def test_attention_writes_bits_in_the_words_of_its_heads(move):
    options, module = attention(move)
    spec, left = fused(module, *options.arrays(), name="gsb.attention_value")
    assert spec.compare == Compare(Kind.MASKED)
    assert spec.shift is move
    assert left["gsb.binarize"] == 3  # queries, keys, values


def test_a_product_that_others_read_stays_float():
    _, module = attention(True, twice=True)
    after = through(module, FuseBinarize())
    assert ops.spec_of(bindings(after, "gsb.attention_value")[0]).compare is None
    assert ops.spec_of(bindings(after, "gsb.binarize")[-1]).shift


def test_a_binarize_in_other_words_stays():
    """Bits of one group of 48 are not bits of two heads of 24."""
    options = Attention(v_scales=(0.5,))

    def build(e, *qkv):
        o = options.build(e, *qkv)
        rows = Rows(2, 5, 1, 48)
        return e(ops.packed(Binarize(rows, COMPARES[0], norm=False, shift=False), [o]))

    module = through(recognised(options.inputs, build), PackAttention(), SimplifyViews())
    assert_leaves_alone(FuseBinarize(), module)
