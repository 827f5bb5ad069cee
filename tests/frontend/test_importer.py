import hashlib

import numpy as np
import onnx
import pytest
import tvm_ffi

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend import Port, load
from tests.frontend.running import constants, operators, run_onnx, run_relax
from tests.frontend.sketch import Sketch, tiny_gsb


def images(batch=1, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("opset", range(17, 23))
def test_every_opset_gives_the_same_module(opset):
    imported = load(tiny_gsb(opset))
    assert imported.opset == opset
    assert tvm_ffi.structural_equal(imported.module, load(tiny_gsb(17)).module)


@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_are_those_of_onnx_runtime(batch):
    model = tiny_gsb(batch=batch)
    x = images(batch)
    (ours,), (theirs,) = run_relax(load(model).module, x), run_onnx(model, x)
    # No quantiser flips on these images; what is left is the order of float32 sums.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("batch", [1, 3])
def test_dynamic_batch_gives_the_module_of_the_static_one(batch):
    dynamic, static = load(tiny_gsb(batch="B"), batch=batch), load(tiny_gsb(batch=batch))
    assert tvm_ffi.structural_equal(dynamic.module, static.module)
    assert dynamic.notes[0] == f"dynamic batch 'B' fixed to {batch}"
    assert "dynamic batch" not in "".join(static.notes)


def test_dynamic_batch_is_1_where_none_is_asked_for():
    assert load(tiny_gsb(batch="B")).inputs == (Port("image", (1, 3, 8, 8), "float32"),)


def test_says_what_it_imported(tmp_path):
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_gsb(), path)
    imported = load(path)
    assert imported.inputs == (Port("image", (1, 3, 8, 8), "float32"),)
    assert imported.outputs == (Port("logits", (1, 6), "float32"),)
    assert imported.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert imported.producer == "sketch"
    assert imported.notes == ["1 straight-through terms (a - b) + b cancelled"]


def test_a_proto_is_left_as_it_was():
    model = tiny_gsb()
    before = model.SerializeToString()
    load(model)
    assert model.SerializeToString() == before


def test_module_is_one_dataflow_block_of_plain_operators():
    used = set(operators(load(tiny_gsb()).module))
    assert used <= {
        *("nn.conv2d", "nn.softmax", "add", "subtract", "multiply", "divide", "sqrt", "matmul"),
        *("concat", "reshape", "permute_dims", "strided_slice", "squeeze", "mean", "max", "min"),
        *("greater", "less", "astype", "round", "clip", "erf", "sign"),
    }


def test_nothing_is_computed_from_constants_alone():
    (block,) = load(tiny_gsb()).module["main"].body.blocks
    variables = {*load(tiny_gsb()).module["main"].params}
    for binding in block.bindings:
        arguments = list(binding.value.args)
        names = [type(argument).__name__ for argument in arguments]
        assert any(name in ("Var", "DataflowVar", "Tuple") for name in names), binding
    assert variables


def test_several_outputs_and_an_input_handed_through():
    g = Sketch()
    x = g.input("x", [2, 3])
    g.output(g("Neg", x), "negative")
    g.output(x, "same")
    g.output(g.constant([1.0, 2.0], "two"), "fixed")
    imported = load(g.model())
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    negative, same, fixed = run_relax(imported.module, value)
    np.testing.assert_array_equal(negative, -value)
    np.testing.assert_array_equal(same, value)
    np.testing.assert_array_equal(fixed, [1, 2])
    assert [port.name for port in imported.outputs] == ["negative", "same", "fixed"]


def test_initializers_listed_as_inputs_are_no_parameters():
    g = Sketch()
    x = g.input("x", [2])
    g.input("w", [2])
    g.output(g("Add", x, g.constant([1.0, 2.0], "w")))
    assert [port.name for port in load(g.model()).inputs] == ["x"]


def test_integer_inputs_are_kept_and_reported():
    g = Sketch()
    ids = g.input("ids", [1, 4], onnx.TensorProto.INT64)
    g.output(g("Gather", np.arange(12, dtype=np.float32).reshape(6, 2), ids, axis=0))
    imported = load(g.model())
    assert imported.inputs == (Port("ids", (1, 4), "int64"),)
    assert imported.notes == ['input "ids" is INT64, not FLOAT']
    (rows,) = run_relax(imported.module, np.array([[0, 5, 2, 2]]))
    np.testing.assert_array_equal(rows[0, 1], [10, 11])


def test_variables_are_named_after_the_modules():
    g = Sketch()
    x = g.input("x", [1, 2])
    y = g("MatMul", x, np.eye(2), name="/blocks/blocks.0/attn/qkv/MatMul")
    g.output(g("Neg", y, name="Gemm_16"))
    (block,) = load(g.model()).module["main"].body.blocks
    first, second = (binding.var.name for binding in block.bindings)
    assert first == "blocks_0_attn_qkv_MatMul"
    assert second == g.outputs[0].name


def test_torch_export_scopes_name_variables():
    g = Sketch()
    g.output(g("MatMul", g.input("x", [1, 2]), np.eye(2), name="node_linear"))
    model = g.model()
    entry = model.graph.node[0].metadata_props.add()
    entry.key = "pkg.torch.onnx.name_scopes"
    entry.value = "['', 'blocks', 'blocks.0', 'blocks.0.attn.qkv', 'linear']"
    (block,) = load(model).module["main"].body.blocks
    assert block.bindings[0].var.name == "blocks_0_attn_qkv_linear"


def test_weights_are_transposed_constants_of_two_levels():
    weights = [w for w in constants(load(tiny_gsb()).module, "matmul") if w.shape == (8, 24)]
    (weight,) = weights
    assert len(np.unique(weight)) == 2
    assert np.unique(weight)[0] == -np.unique(weight)[1]


def test_batch_must_be_positive():
    with pytest.raises(ModelError, match=r"^batch is 0, expected at least 1\.$"):
        load(tiny_gsb(), batch=0)
