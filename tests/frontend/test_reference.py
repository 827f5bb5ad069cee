"""The model with constants folded: what verification compares with."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.reference import folded_model
from tests import tiny_models as tiny


def scaled_sign_model(array, **options):
    """X times sign(w - mean w) * mean |w|, as an exporter writes a binary weight."""
    nodes = [
        helper.make_node("ReduceMean", ["w"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["w", "mean"], ["centred"]),
        helper.make_node("Sign", ["centred"], ["signs"]),
        helper.make_node("Abs", ["w"], ["magnitude"]),
        helper.make_node("ReduceMean", ["magnitude"], ["scale"], keepdims=0),
        helper.make_node("Mul", ["signs", "scale"], ["binary"]),
        helper.make_node("Sign", ["x"], ["s"]),
        helper.make_node("MatMul", ["s", "binary"], ["y"]),
    ]
    options.setdefault("out_shape", (1, tiny.TOKENS, tiny.COLUMNS))
    return tiny.model(nodes, {"w": array}, **options)


def run(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})[0]


def test_a_binary_weight_becomes_a_constant_with_its_scale_in_float64():
    array = tiny.weight()
    folded = folded_model(scaled_sign_model(array))
    onnx.checker.check_model(folded, full_check=True)
    assert [node.op_type for node in folded.graph.node] == ["Sign", "MatMul"]
    (tensor,) = folded.graph.initializer
    assert tensor.name == "binary"
    scale = np.float32(np.abs(array.astype(np.float64)).mean())
    signs = np.sign(array - np.float32(array.astype(np.float64).mean()))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), signs * scale)


@pytest.mark.parametrize("batch", [None, 3])
def test_outputs_agree_with_the_original(batch):
    model = scaled_sign_model(
        tiny.weight(),
        shape=("n", tiny.TOKENS, tiny.FEATURES),
        out_shape=("n", tiny.TOKENS, tiny.COLUMNS),
    )
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch or 1, tiny.TOKENS, tiny.FEATURES)).astype(np.float32)
    # The scale differs by the rounding of a sum over 960 values, at most 960 * 2**-24.
    np.testing.assert_allclose(
        run(folded_model(model, batch=batch), x), run(model, x), rtol=6e-5, atol=1e-6
    )


def test_the_callers_model_is_left_as_it_is():
    model = scaled_sign_model(tiny.weight())
    before = model.SerializeToString(deterministic=True)
    folded_model(model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_model_without_constants_to_fold_keeps_its_nodes():
    model = tiny.binary_linear()
    folded = folded_model(model)
    assert list(folded.graph.node) == list(model.graph.node)
    assert {t.name for t in folded.graph.initializer} == {"w", "b"}


def test_a_damaged_model_is_refused():
    with pytest.raises(ModelError, match="opset"):
        folded_model(tiny.binary_linear(opset=9))
