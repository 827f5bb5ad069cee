"""Rows of the layer report: packed, or float with a reason."""

import numpy as np
import pytest
from onnx import helper
from tvm.ir.transform import Sequential

from gsb_tvm.frontend.importer import load
from gsb_tvm.passes.pipeline import packing_passes, recognition_passes
from gsb_tvm.passes.report import layer_rows, with_leftovers
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny

T, K, N = tiny.TOKENS, tiny.FEATURES, tiny.COLUMNS


def recognised(model):
    return Sequential(recognition_passes())(load(model).module)


def rows(model):
    return layer_rows(recognised(model))


def product(*nodes, out_shape=(1, T, N), shape=(1, T, K), **constants):
    made = [helper.make_node(op, inputs, [out]) for op, inputs, out in nodes]
    return tiny.model(made, constants, out_shape=out_shape, shape=shape)


SIGN = ("Sign", ["x"], "s")
MATMUL = ("MatMul", ["s", "w"], "y")


def test_a_binary_linear_is_packed():
    (row,) = rows(tiny.binary_linear())
    assert (row.name, row.operator, row.form) == ("layer_MatMul", "linear", "packed")
    assert row.shape == (T, K, N)
    assert row.macs == T * K * N
    assert row.bytes == N * (2 * 4 + 4)
    assert row.is_binary


def test_a_product_of_two_live_planes_is_packed():
    model = product(
        ("Transpose", ["x"], "t"),
        SIGN,
        ("Sign", ["t"], "u"),
        ("MatMul", ["s", "u"], "y"),
        out_shape=(T, T),
        shape=(T, K),
    )
    (row,) = rows(model)
    assert (row.operator, row.form, row.bytes) == ("product", "packed", 0)
    assert row.macs == T * K * T


@pytest.mark.parametrize(
    ("nodes", "weight", "reason", "is_binary"),
    [
        ([SIGN, MATMUL], tiny.weight(), "weight is float", False),
        ([SIGN, MATMUL], np.clip(np.round(tiny.weight()), -2, 2), "weight has 5 levels", False),
        (
            [("Relu", ["x"], "s"), MATMUL],
            tiny.binary_weight(),
            "weight is binary, activation is float",
            True,
        ),
        (
            [
                ("Greater", ["x", "k"], "g"),
                ("Where", ["g", "k", "h"], "s"),
                MATMUL,
            ],
            tiny.binary_weight(),
            "binary, but scales change along the contracted axis",
            True,
        ),
        (
            [SIGN, ("Mul", ["s", "k"], "m"), ("MatMul", ["m", "w"], "y")],
            tiny.binary_weight(),
            "binary, but scales change along the contracted axis",
            True,
        ),
    ],
)
def test_a_float_linear_says_why(nodes, weight, reason, is_binary):
    constants = {"w": weight.astype(np.float32)}
    if any("k" in inputs for _, inputs, _ in nodes):
        constants |= {"k": np.linspace(1, 2, K, dtype=np.float32), "h": np.zeros(K, np.float32)}
    (row,) = rows(product(*nodes, **constants))
    assert (row.form, row.reason, row.is_binary) == ("float", reason, is_binary)
    assert row.bytes == K * N * 4


def test_a_product_with_a_constant_term_of_many_values():
    model = product(
        SIGN,
        ("Add", ["s", "k"], "m"),
        ("Transpose", ["s"], "t"),
        ("MatMul", ["m", "t"], "y"),
        k=np.linspace(1, 2, K, dtype=np.float32),
        shape=(T, K),
        out_shape=(T, T),
    )
    (row,) = rows(model)
    assert (row.form, row.is_binary) == ("float", True)
    assert row.reason == "binary, but scales or constant terms have too many values"


def test_a_product_of_floats_says_so():
    model = product(
        ("Transpose", ["x"], "t"), ("MatMul", ["x", "t"], "y"), out_shape=(T, T), shape=(T, K)
    )
    (row,) = rows(model)
    assert (row.operator, row.reason, row.is_binary) == (
        "product",
        "both operands are float",
        False,
    )


@pytest.mark.parametrize(
    ("levels", "reason"),
    [(2, "binary convolution has no packed kernel"), (5, "weight has 5 levels")],
)
def test_a_convolution_counts_as_a_product(levels, reason):
    rng = np.random.default_rng(0)
    values = np.linspace(-1, 1, levels, dtype=np.float32)
    weight = values[rng.integers(0, levels, (8, 3, 2, 2))]
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], name="/patch/Conv")
    model = tiny.model([node], {"w": weight}, shape=(1, 3, 6, 6), out_shape=(1, 8, 3, 3))
    (row,) = rows(model)
    assert (row.operator, row.name, row.shape) == ("conv2d", "patch_Conv", (9, 12, 8))
    assert row.reason == reason
    assert row.is_binary == (levels == 2)
    assert row.bytes == weight.nbytes


def test_a_product_that_no_pass_takes_is_a_leftover():
    # Scales per token on the left: recognised, and no packed form takes it.
    model = product(
        SIGN,
        ("Mul", ["s", "k"], "m"),
        ("MatMul", ["m", "w"], "y"),
        w=tiny.binary_weight(),
        k=np.linspace(1, 2, T, dtype=np.float32)[:, None],
    )
    module = recognised(model)
    (row,) = layer_rows(module)
    assert row.form == "packed"
    packed = Sequential(packing_passes(resolve("llvm")))(module)
    (row,) = with_leftovers([row], packed)
    assert (row.form, row.is_binary) == ("float", True)
    assert "a scale of its left operand is not one number" in row.reason
    assert row.bytes == K * N * 4


def test_nothing_is_left_of_what_is_packed():
    module = recognised(tiny.binary_linear())
    found = layer_rows(module)
    assert with_leftovers(found, Sequential(packing_passes(resolve("llvm")))(module)) == found
