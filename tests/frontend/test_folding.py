"""Weights are folded by the contract: steps in float32, statistics in float64 rounded once."""

import numpy as np
import onnx
import pytest

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend import load
from tests.frontend.running import constants, operators
from tests.frontend.sketch import Sketch, binary_weight, ints


def folded(build, shape, operator="multiply"):
    """The constant that ``build`` computes, met by the input in one elementwise product."""
    g = Sketch()
    g.output(g("Mul", g.input("x", list(shape)), build(g)))
    (constant,) = constants(load(g.model()).module, operator)
    return constant


@pytest.fixture
def weight():
    """A weight whose 1-norm a float32 sum gets wrong."""
    rng = np.random.default_rng(7)
    return (rng.standard_normal((300, 700)) * 0.02 + 0.01).astype(np.float32)


def test_the_scale_is_summed_in_float64_and_rounded_once(weight):
    exact = np.float32(np.abs(weight.astype(np.float64)).sum() / weight.size)
    sequential = np.cumsum(np.abs(weight).reshape(-1), dtype=np.float32)[-1] / np.float32(
        weight.size
    )
    assert sequential != exact  # what a naive float32 fold would give
    found = folded(lambda g: binary_weight(g, weight), weight.shape)
    assert set(np.unique(np.abs(found))) == {exact}
    mean = np.float32(weight.astype(np.float64).mean())
    np.testing.assert_array_equal(np.sign(found), np.sign(weight - mean))


def test_the_mean_decides_a_sign_that_float32_gets_wrong():
    # The mean is 1 + 0.75 * 2^-23, which rounds up; a float32 running sum loses every such bit.
    values = np.full(2**12, np.float32(1.0), np.float32)
    values[np.arange(values.size) % 4 != 0] += np.float32(2**-23)
    mean32 = np.cumsum(values, dtype=np.float32)[-1] / np.float32(values.size)
    assert mean32 != np.float32(values.astype(np.float64).mean())

    def build(g):
        w = g.constant(values)
        return g("Sign", g("Sub", w, g.reduce("ReduceMean", w, keepdims=0)))

    expected = np.sign(values - np.float32(values.astype(np.float64).mean()))
    np.testing.assert_array_equal(folded(build, values.shape), expected)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceSum"])
def test_row_statistics_and_scalar_arithmetic_stay_exact(weight, op):
    wide = weight.astype(np.float64)
    exact = {
        "ReduceMean": wide.mean(1, keepdims=True),
        "ReduceL1": np.abs(wide).sum(1, keepdims=True),
        "ReduceL2": np.sqrt((wide**2).sum(1, keepdims=True)),
        "ReduceSum": wide.sum(1, keepdims=True),
    }[op]
    exact = (exact * np.float64(np.float32(0.7)) / 3.0).astype(np.float32)

    def build(g):
        row = g.reduce(op, g.constant(weight), [1])
        return g("Div", g("Mul", row, np.float32(0.7)), np.float32(3))

    np.testing.assert_array_equal(folded(build, weight.shape), exact)


def test_a_statistic_is_rounded_before_it_meets_a_tensor(weight):
    scale = np.float32(np.abs(weight.astype(np.float64)).mean())

    def build(g):
        w = g.constant(weight)
        return g("Div", w, g.reduce("ReduceMean", g("Abs", w), keepdims=0))

    np.testing.assert_array_equal(folded(build, weight.shape), weight / scale)


def test_elementwise_steps_are_float32_in_order(weight):
    a, b = np.float32(0.3), np.float32(0.1)

    def build(g):
        w = g.constant(weight)
        return g("Div", g("Add", g("Mul", w, a), b), a)

    expected = (weight * a + b) / a
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(folded(build, weight.shape), expected)


def test_two_level_initialisers_pass_unchanged():
    rng = np.random.default_rng(2)
    levels = (np.sign(rng.standard_normal((9, 5))) * np.float32(0.012345)).astype(np.float32)
    g = Sketch()
    g.output(g("MatMul", g.input("x", [1, 9]), levels))
    (found,) = constants(load(g.model()).module, "matmul")
    np.testing.assert_array_equal(found, levels)


def test_half_precision_initialisers_are_widened():
    half = np.array([0.1, -2.5, 65504], np.float16)

    def build(g):
        return g("Cast", g.constant(half), to=onnx.TensorProto.FLOAT)

    np.testing.assert_array_equal(folded(build, (3,)), half.astype(np.float32))


def test_a_cast_does_not_round_a_statistic_early(weight):
    def build(g):
        total = g.reduce("ReduceSum", g.constant(weight), keepdims=0)
        return g("Mul", g("Cast", total, to=onnx.TensorProto.FLOAT), np.float32(1e-3))

    exact = np.float32(weight.astype(np.float64).sum() * np.float64(np.float32(1e-3)))
    assert folded(build, weight.shape) == exact


def test_expanded_constants_are_not_made_full_size():
    g = Sketch()
    x = g.input("x", [1024, 198, 64])
    bias = g("Expand", g.constant(np.arange(64, dtype=np.float32)), ints(1024, 198, 64))
    g.output(g("Add", x, bias))
    (found,) = constants(load(g.model()).module, "add")
    np.testing.assert_array_equal(found, np.arange(64))


def test_unused_weights_do_not_matter():
    g = Sketch()
    x = g.input("x", [2])
    g("Div", np.zeros(2), np.zeros(2))
    g.output(g("Neg", x))
    assert operators(load(g.model()).module) == ["negative"]


def test_zero_over_zero_is_refused():
    with pytest.raises(ModelError, match="the weights it is computed from give NaN"):
        folded(lambda g: g("Div", np.zeros(2), np.zeros(2)), (2,))
