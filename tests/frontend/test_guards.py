"""Each kind of bad input ends in one sentence that names the place and the way out."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gsb_tvm.dialect.errors import ExitCode, ModelError
from gsb_tvm.frontend import load
from tests.frontend.running import operators
from tests.frontend.sketch import Sketch, ints, tiny_gsb


def small(change=None, opset=17):
    """y = relu(x + w) with w of shape [3], changed before it is loaded."""
    g = Sketch(opset)
    x = g.input("x", [2, 3])
    g.output(g("Relu", g("Add", x, g.constant([1.0, 2.0, 3.0], "w"), name="sum"), name="act"), "y")
    model = g.model()
    if change:
        change(model)
    return model


def node(op, *operands, shape=(2, 3), opset=17, element=TensorProto.FLOAT, outputs=1, **attrs):
    """A model of one node "it" on x and further operands."""
    g = Sketch(opset)
    x = g.input("x", list(shape), element)
    made = g(op, x, *operands, name="it", outputs=outputs, **attrs)
    g.output(made if outputs == 1 else made[0])
    model = g.model()
    # onnx.checker wants the output to have a shape, which a wrong node does not give.
    if not model.graph.output[0].type.tensor_type.HasField("shape"):
        result = helper.make_tensor_value_info("", element, shape)
        model.graph.output[0].type.CopyFrom(result.type)
    return model


def weights(*values):
    def change(model):
        data = np.array(values, np.float32)
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(data, "w"))

    return small(change)


def with_domain(domain, op="Foo"):
    def change(model):
        model.graph.node[0].domain = domain
        model.graph.node[0].op_type = op
        model.opset_import.append(helper.make_opsetid(domain, 1))

    return small(change)


def symbolic(axis, name="n"):
    return small(
        lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[axis], "dim_param", name)
    )


def opset(version):
    return small(lambda m: setattr(m.opset_import[0], "version", version))


def control_flow():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["t"])],
        "b",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, [2, 3])],
    )
    g = Sketch()
    g.input("x", [2, 3])
    chosen = g("If", np.array(True), name="choice", then_branch=branch, else_branch=branch)
    g.outputs.append(helper.make_tensor_value_info(chosen, TensorProto.FLOAT, [2, 3]))
    graph = helper.make_graph(g.nodes, "sketch", g.inputs, g.outputs, g.initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def local_function():
    def change(model):
        function = helper.make_function(
            "local",
            "gelu",
            ["x"],
            ["y"],
            [helper.make_node("Erf", ["x"], ["y"])],
            [helper.make_opsetid("", 17)],
        )
        model.functions.append(function)

    return small(change)


def sparse():
    def change(model):
        values = onnx.numpy_helper.from_array(np.ones(1, np.float32), "s")
        indices = onnx.numpy_helper.from_array(ints(1), "i")
        model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [3]))

    return small(change)


def set_first(field, value, place="node"):
    return small(lambda m: setattr(getattr(m.graph, place)[0], field, value))


def clear(field):
    return small(lambda m: m.graph.ClearField(field))


def data_dependent():
    g = Sketch()
    x = g.input("x", [4])
    g.output(g("Gather", x, g("Squeeze", g("NonZero", x, name="it"), ints(0)), axis=0), "y")
    return g.model()


def folded_nan():
    g = Sketch()
    x = g.input("x", [2])
    w = g.constant([0.0, 0.0], "w")
    g.output(g("Mul", x, g("Div", w, g.reduce("ReduceMax", w, [0]), name="scaled")), "y")
    return g.model()


def invalid_utf8():
    data = small().SerializeToString().replace(b"act", b"\xff\xfe\xfd")
    model = onnx.ModelProto()
    model.ParseFromString(data)
    return model


def different_symbols():
    g = Sketch()
    g.output(g("Add", g.input("x", ["a", 3]), g.input("z", ["b", 3])), "y")
    return g.model()


def self_reference():
    return small(lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[1].output[0]))


BAD = {
    "no graph": lambda: onnx.ModelProto(ir_version=8),
    "no nodes": lambda: clear("node"),
    "no outputs": lambda: clear("output"),
    "no inputs": lambda: clear("input"),
    "opset too old": lambda: opset(16),
    "opset too new": lambda: opset(23),
    "no opset": lambda: small(lambda m: m.ClearField("opset_import")),
    "control flow": control_flow,
    "local function": local_function,
    "sparse initializer": sparse,
    "com.microsoft": lambda: with_domain("com.microsoft", "FusedMatMul"),
    "qonnx Quant": lambda: with_domain("qonnx.custom_op.general", "Quant"),
    "qonnx BipolarQuant of one input": lambda: node(
        "BipolarQuant", domain="qonnx.custom_op.general"
    ),
    "foreign domain": lambda: with_domain("my.ops"),
    "NaN weight": lambda: weights(1, np.nan, 2),
    "infinite weight": lambda: weights(1, np.inf, 2),
    "folded NaN": folded_nan,
    "initializer twice": lambda: small(
        lambda m: m.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(3, "f4"), "w"))
    ),
    "value twice": lambda: small(
        lambda m: m.graph.node[1].output.__setitem__(0, m.graph.node[0].output[0])
    ),
    "input twice": lambda: small(lambda m: m.graph.input.append(m.graph.input[0])),
    "input and value": lambda: small(lambda m: m.graph.node[1].output.__setitem__(0, "x")),
    "output twice": lambda: small(lambda m: m.graph.output.append(m.graph.output[0])),
    "output of nothing": lambda: set_first("name", "z", "output"),
    "input of nothing": lambda: small(lambda m: m.graph.node[0].input.__setitem__(0, "gone")),
    "circle": self_reference,
    "node without output": lambda: small(lambda m: m.graph.node[1].ClearField("output")),
    "unnamed input": lambda: set_first("name", "", "input"),
    "name not UTF-8": invalid_utf8,
    "name with an escape sequence": lambda: set_first("name", "\x1b[2J"),
    "endless name": lambda: set_first("name", "n" * 1001),
    "unknown operator": lambda: set_first("op_type", "Frobnicate"),
    "operator not handled": lambda: node("Det", shape=(2, 2)),
    "random operator": lambda: node("RandomNormalLike"),
    "tensor cut": lambda: set_first("raw_data", b"\0" * 8, "initializer"),
    "tensor of unknown type": lambda: set_first("data_type", 77, "initializer"),
    "tensor of strings": lambda: set_first("data_type", TensorProto.STRING, "initializer"),
    "tensor of negative shape": lambda: small(
        lambda m: m.graph.initializer[0].dims.__setitem__(0, -3)
    ),
    "tensor of 2^40 elements": lambda: small(
        lambda m: m.graph.initializer[0].dims.__setitem__(0, 2**40)
    ),
    "external data in a proto": lambda: set_first(
        "data_location", TensorProto.EXTERNAL, "initializer"
    ),
    "shapes do not fit": lambda: weights(1, 2, 3, 4),
    "symbolic axis": lambda: symbolic(1),
    "other batch": lambda: (small(), {"batch": 3}),
    "different symbolic batches": different_symbols,
    "input of size 0": lambda: node("Relu", shape=(2, 0)),
    "input in half precision": lambda: node("Neg", element=TensorProto.FLOAT16),
    "input in double precision": lambda: node("Neg", element=TensorProto.DOUBLE),
    "input without a shape": lambda: small(
        lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")
    ),
    "input of a sequence": lambda: small(
        lambda m: m.graph.input[0].type.CopyFrom(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2]))
        )
    ),
    "double inside": lambda: _double_inside(),
    "data-dependent shape": data_dependent,
    "shape from the input": lambda: _shape_from_input(),
    "axes from the input": lambda: _axes_from_input(),
    "bound from the input": lambda: _bound_from_input(),
    "index out of range": lambda: node("Gather", np.int64(7), axis=1),
    "absurd size": lambda: node("Tile", ints(2**20, 2**20)),
    "absurd constant": lambda: _absurd_constant(),
    "missing attribute": lambda: node("Cast"),
    "attribute of a wrong type": lambda: node("Transpose", perm="no"),
    "wrong permutation": lambda: node("Transpose", perm=[0, 0]),
    "convolution of wrong channels": lambda: node(
        "Conv", np.ones((4, 2, 1, 1)), shape=(1, 3, 5, 5), kernel_shape=[1, 1]
    ),
    "convolution with a wrong bias": lambda: node(
        "Conv", np.ones((4, 3, 1, 1)), np.ones(3), shape=(1, 3, 5, 5), kernel_shape=[1, 1]
    ),
    "reshape to another size": lambda: node("Reshape", ints(4, 2)),
    "division by zero in a shape": lambda: _zero_division(),
    "second output as an output": lambda: _second_output(False),
    "second output as an input": lambda: _second_output(True),
    "uneven resize": lambda: node("Resize", "", np.ones(2) * 1.5, shape=(4, 4), mode="nearest"),
    "padding by reflection": lambda: node("Pad", ints(1, 1, 1, 1), mode="reflect"),
    "too large": lambda: (tiny_gsb(), {"max_bytes": 1000}),
}


def _second_output(used):
    g = Sketch()
    x = g.input("x", [1, 1, 4, 4])
    _, index = g("MaxPool", x, kernel_shape=[2, 2], outputs=2, name="it")
    g.output(g("Neg", index, name="reader") if used else index, element=TensorProto.INT64)
    return g.model()


def _double_inside():
    g = Sketch()
    wide = g("Cast", g.input("x", [2]), to=TensorProto.DOUBLE)
    g.output(g("Cast", g("Neg", wide, name="it"), to=TensorProto.FLOAT))
    return g.model()


def _shape_from_input():
    g = Sketch()
    x = g.input("x", [2, 3])
    g.output(g("Reshape", x, g.input("s", [2], TensorProto.INT64), name="it"), "y")
    g.outputs[0] = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    return g.model()


def _axes_from_input():
    g = Sketch(18)
    x, axes = g.input("x", [2, 3]), g.input("a", [1], TensorProto.INT64)
    g.output(g("ReduceMean", x, axes, name="it"), "y")
    g.outputs[0] = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    return g.model()


def _bound_from_input():
    g = Sketch()
    x, low = g.input("x", [2, 3]), g.input("low", [])
    g.output(g("Clip", x, low, name="it"), "y")
    return g.model()


def _absurd_constant():
    g = Sketch()
    x = g.input("x", [1])
    big = g("ConstantOfShape", ints(2**20, 2**20), name="it")
    g.output(g("Add", x, big), "y")
    return g.model()


def _zero_division():
    g = Sketch()
    x = g.input("x", [2, 3])
    zero = g("Sub", g("Shape", x), g("Shape", x))
    g.output(g("Reshape", x, g("Div", g("Shape", x), zero, name="it")), "y")
    g.outputs[0] = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])
    return g.model()


def message(case):
    made = BAD[case]()
    model, options = made if isinstance(made, tuple) else (made, {})
    with pytest.raises(ModelError) as caught:
        load(model, **options)
    return caught.value


# One line a case: its name, a bar, the whole sentence.
LINES = Path(__file__).with_name("bad_inputs.txt").read_text(encoding="utf-8").splitlines()
MESSAGES = dict(line.split(" | ", 1) for line in LINES)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_this_sentence(case):
    error = message(case)
    assert str(error) == MESSAGES[case]
    assert error.exit_code == ExitCode.MODEL


def test_there_are_at_least_40_kinds():
    assert len(BAD) >= 40
    assert BAD.keys() == MESSAGES.keys()


FILES = {
    "missing": (lambda path: None, "there is no such file."),
    "a folder": (
        lambda path: path.mkdir(),
        "it is not a regular file. Give the path of an .onnx file.",
    ),
    "a FIFO": (
        os.mkfifo,
        "it is not a regular file. Give the path of an .onnx file.",
    ),
    "empty": (
        lambda path: path.touch(),
        "the file is empty. Export or copy the model again.",
    ),
    "text": (
        lambda path: path.write_text("# A model?\n"),
        "it is not an ONNX model, or a damaged one (11 bytes that protobuf cannot decode). "
        "Export or copy it again.",
    ),
    "truncated": (
        lambda path: path.write_bytes(tiny_gsb().SerializeToString()[:5000]),
        "it is not an ONNX model, or a damaged one (5000 bytes that protobuf cannot decode). "
        "Export or copy it again.",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_file_ends_in_this_sentence(case, tmp_path):
    make, sentence = FILES[case]
    path = tmp_path / "model.onnx"
    make(path)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {sentence}"


def test_a_path_with_a_nul_is_refused():
    with pytest.raises(ModelError, match=r"cannot be read \(embedded null byte\)"):
        load("a\0b.onnx")


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(caught.value) == (
        f"{path}: the model has 1099511627776 bytes, and the limit is 2147483647. "
        "Larger models are not handled."
    )


def test_scalar_infinity_is_an_open_bound():
    model = node("Clip", np.float32(-np.inf), np.float32(2))
    assert operators(load(model).module) == ["minimum"]


def test_default_domain_may_be_spelt_out():
    model = small(lambda m: setattr(m.opset_import[0], "domain", "ai.onnx"))
    assert operators(load(model).module) == ["add", "nn.relu"]
