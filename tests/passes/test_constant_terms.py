"""Operands with a constant term: a bias where weights follow, planes of ones otherwise."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tvm.relax import op

from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.constant_terms import bias
from gsb_tvm.passes.pack_matmul import PackMatmul
from gsb_tvm.passes.recognize_planes import RecognizePlanes
from gsb_tvm.passes.superposition import Superposed, Term
from gsb_tvm.testing import assert_rewrites, module_of, operators, run_module
from tests.passes.graphs import CLEAN, bindings, const, quarters, two_level

HEADS = (2, 4, 3, 33)  # batch, heads, tokens, width


def test_a_bias_is_the_constant_times_the_weight():
    weight = two_level(33, 7)
    weight[3, 2] = 0
    found = sp.binary_weight(weight)
    for constant in (np.float32(0.3), np.linspace(-1, 1, 33, dtype=np.float32)):
        x = Superposed((Term("p", Kind.SIGN, sp.ONE),), constant)
        expected = np.broadcast_to(constant, 33).astype(float) @ weight.astype(float)
        np.testing.assert_array_equal(bias(x, found), expected.astype(np.float32))


@pytest.mark.parametrize("k", [2, 33, 64])
@pytest.mark.parametrize("constant", [0.5, -2.0, np.float32([[1], [0], [3]])])
def test_before_weights_a_constant_is_a_bias(k, constant):
    def build(e, x):
        return e(op.matmul(e(op.add(e(op.sign(x)), const(constant))), const(two_level(k, 7))))

    before = module_of({"x": (2, 3, k)}, build)
    after = assert_rewrites(RecognizePlanes(), before, inputs=[quarters(2, 3, k)])
    assert operators(after)["relax.matmul"] == 0
    assert operators(after)["relax.add"] == 1


def affine(e, x, scale, shift):
    """Bi-ViT: a (sign(x) - z)."""
    return e(op.multiply(e(op.subtract(e(op.sign(x)), const(shift))), const(scale)))


def by_head(*values):
    return np.float32(values).reshape(-1, 1, 1)


@seed(0)
@settings(max_examples=20)
@given(
    shifts=st.lists(st.integers(-2, 2), min_size=4, max_size=4),
    others=st.lists(st.integers(-2, 2), min_size=4, max_size=4),
)
def test_every_shift_of_heads_gives_the_exact_integers(shifts, others):
    """Scales no power of two: a sign behind the product shows where it is exactly 0."""
    scales, numbers = by_head(0.1, 0.3, 0.7, 1.1), [by_head(*shifts), by_head(*others)]

    def build(e, x, y):
        a, b = affine(e, x, scales, numbers[0]), affine(e, y, scales, numbers[1])
        return e(op.sign(e(op.matmul(a, e(op.permute_dims(b, [0, 1, 3, 2]))))))

    after = PackMatmul()(RecognizePlanes()(module_of({"x": HEADS, "y": HEADS}, build)))
    assert operators(CLEAN(after))["gsb.batch_matmul"] == 1
    x, y = quarters(*HEADS), quarters(*HEADS, number=1)
    a, b = (np.sign(v).astype(int) - n.astype(int) for v, n in zip((x, y), numbers, strict=True))
    np.testing.assert_array_equal(run_module(after, x, y)[0], np.sign(a @ b.swapaxes(2, 3)))


def product(shape, a_scale, a_shift):
    def build(e, x, y):
        return e(op.matmul(affine(e, x, a_scale, a_shift), e(op.sign(y))))

    return module_of({"x": shape, "y": (*shape[:-2], shape[-1], 5)}, build)


@pytest.mark.parametrize(
    ("scale", "shift", "planes"),
    [(0.5, 0.25, 2), (0.3, 0.123, 2), (by_head(1, 2, 4, 8), 1.0, 2), (0.5, by_head(0, 1, 2, 1), 3)],
)
def test_one_plane_for_each_value_of_the_shift(scale, shift, planes):
    before = product(HEADS, scale, shift)
    arrays = [quarters(*HEADS), quarters(2, 4, 33, 5, number=1)]
    after = assert_rewrites(RecognizePlanes(), before, inputs=arrays, tolerance=1e-6)
    (call,) = bindings(after, "gsb.matmul")
    assert len(call.args[0].fields) == planes


@pytest.mark.parametrize(
    ("scale", "shift"),
    [
        (0.5, np.linspace(0.1, 1, 33, dtype=np.float32)),
        (by_head(0.1, 0.3, 0.7, 1.1), by_head(0.11, 0.19, 0.06, 0.21)),
        (0.0, by_head(1, 2, 3, 4)),
        (1.0, np.inf),
    ],
    ids=["many values", "no float32 is the ratio", "no scale", "infinite"],
)
def test_other_constants_stay(scale, shift):
    def build(e, x, y):
        left = e(op.add(e(op.multiply(e(op.sign(x)), const(scale))), const(shift)))
        return e(op.matmul(left, e(op.sign(y))))

    before = module_of({"x": HEADS, "y": (2, 4, 33, 5)}, build)
    assert operators(CLEAN(RecognizePlanes()(before)))["relax.matmul"] == 1
