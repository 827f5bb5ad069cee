"""Bad models as a user compiles them: exit code 3, one sentence, and no file left."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import tiny_models as tiny
from tests.commandline import NATIVE, refused
from tests.tiny_models import save

# Kinds of bad models: each writes what it needs into the folder and names the file to compile.


def missing(folder: Path) -> str:
    return "nothing.onnx"


def a_folder(folder: Path) -> str:
    (folder / "d").mkdir()
    return "d"


def empty(folder: Path) -> str:
    (folder / "m.onnx").touch()
    return "m.onnx"


def text(folder: Path) -> str:
    (folder / "m.onnx").write_text("this is no model\n" * 50)
    return "m.onnx"


def noise(folder: Path) -> str:
    (folder / "m.onnx").write_bytes(np.random.default_rng(0).bytes(4000))
    return "m.onnx"


def checkpoint(folder: Path) -> str:
    (folder / "m.pth").write_bytes(b"PK\x03\x04" + bytes(500))
    return "m.pth"


def truncated(folder: Path) -> str:
    data = tiny.binary_linear().SerializeToString()
    (folder / "m.onnx").write_bytes(data[: len(data) // 2])
    return "m.onnx"


def one_byte_short(folder: Path) -> str:
    (folder / "m.onnx").write_bytes(tiny.binary_linear().SerializeToString()[:-1])
    return "m.onnx"


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "m.onnx")
    return "m.onnx"


def a_loop_of_links(folder: Path) -> str:
    (folder / "m.onnx").symlink_to("m.onnx")
    return "m.onnx"


def name_too_long(folder: Path) -> str:
    return "x" * 300 + ".onnx"


def _external(folder: Path, location: str, length: int | None = None) -> str:
    made = tiny.float_linear()
    tensor = made.graph.initializer[0]
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length or size))):
        tensor.external_data.add(key=key, value=value)
    return save(folder, made)


def external_missing(folder: Path) -> str:
    return _external(folder, "m.data")


def external_parent(folder: Path) -> str:
    (folder / "inner").mkdir()
    (folder / "m.data").write_bytes(bytes(8000))
    _external(folder / "inner", "../m.data")
    return "inner/m.onnx"


def external_absolute(folder: Path) -> str:
    return _external(folder, "/etc/passwd")


def external_link(folder: Path) -> str:
    (folder / "m.data").symlink_to("/etc/passwd")
    return _external(folder, "m.data")


def external_short(folder: Path) -> str:
    (folder / "m.data").write_bytes(bytes(10))
    return _external(folder, "m.data")


def external_huge(folder: Path) -> str:
    (folder / "m.data").write_bytes(bytes(10))
    return _external(folder, "m.data", 10**18)


def nan_weight(folder: Path) -> str:
    array = tiny.weight()
    array[3, 4] = np.nan
    return save(folder, tiny.float_linear(array))


def infinite_weight(folder: Path) -> str:
    array = tiny.weight()
    array[3, 4] = np.inf
    return save(folder, tiny.float_linear(array))


def double_weight(folder: Path) -> str:
    return save(
        folder, tiny.float_linear(tiny.weight().astype(np.float64), dtype=TensorProto.DOUBLE)
    )


def weight_too_small(folder: Path) -> str:
    made = tiny.float_linear()
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-8]
    return save(folder, made)


def shapes_do_not_fit(folder: Path) -> str:
    return save(folder, tiny.float_linear(tiny.weight(tiny.FEATURES + 1)))


def text_input(folder: Path) -> str:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(folder, tiny.model(nodes, {}, dtype=TensorProto.STRING))


def _one_node(folder: Path, op: str, domain: str = "", **attributes: object) -> str:
    nodes = [helper.make_node(op, ["x"], ["y"], name="odd", domain=domain, **attributes)]
    opsets = [helper.make_opsetid(domain, 1)] if domain else []
    return save(folder, tiny.model(nodes, {}, opsets=opsets))


def unsupported_operator(folder: Path) -> str:
    return _one_node(folder, "Hardmax")


def unknown_operator(folder: Path) -> str:
    return _one_node(folder, "Fnord")


def foreign_domain(folder: Path) -> str:
    return _one_node(folder, "Gelu", "com.acme")


def contrib_domain(folder: Path) -> str:
    return _one_node(folder, "Gelu", "com.microsoft")


def control_flow(folder: Path) -> str:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], name="odd", then_branch=body, else_branch=body)
    return save(folder, tiny.model([node], {"c": np.array(True)}))


def opset_too_old(folder: Path) -> str:
    return save(folder, tiny.binary_linear(opset=9))


def opset_too_new(folder: Path) -> str:
    return save(folder, tiny.binary_linear(opset=99))


def symbolic_tokens(folder: Path) -> str:
    return save(
        folder,
        tiny.binary_linear(
            shape=("n", "tokens", tiny.FEATURES), out_shape=("n", "tokens", tiny.COLUMNS)
        ),
    )


def no_nodes(folder: Path) -> str:
    return save(folder, tiny.model([], {}))


def no_outputs(folder: Path) -> str:
    made = tiny.binary_linear()
    del made.graph.output[:]
    return save(folder, made)


def no_graph(folder: Path) -> str:
    return save(folder, onnx.ModelProto(ir_version=8))


def name_used_twice(folder: Path) -> str:
    made = tiny.binary_linear()
    made.graph.node.append(made.graph.node[0])
    return save(folder, made)


def not_sorted(folder: Path) -> str:
    made = tiny.binary_linear()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return save(folder, made)


def value_from_nowhere(folder: Path) -> str:
    return save(folder, tiny.model([helper.make_node("Add", ["x", "ghost"], ["y"])], {}))


def output_of_nobody(folder: Path) -> str:
    return save(folder, tiny.model([helper.make_node("Relu", ["x"], ["z"])], {}))


def declared_shape_contradicts(folder: Path) -> str:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"], name="odd")]
    return save(folder, tiny.model(nodes, {"s": np.array([7, 7], np.int64)}))


def sparse_weight(folder: Path) -> str:
    made = tiny.float_linear()
    values = numpy_helper.from_array(np.ones(2, np.float32), "sp")
    indices = numpy_helper.from_array(np.array([0, 1], np.int64))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return save(folder, made)


def own_functions(folder: Path) -> str:
    made = tiny.binary_linear()
    made.functions.append(
        helper.make_function(
            "own",
            "F",
            ["a"],
            ["b"],
            [helper.make_node("Relu", ["a"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    return save(folder, made)


# Each with a word that its sentence holds, so that none is refused for another reason.
BAD_MODELS: dict[Callable[[Path], str], str] = {
    missing: "no such file",
    a_folder: "not a regular file",
    empty: "empty",
    text: "not an ONNX model",
    noise: "not an ONNX model",
    checkpoint: "not an ONNX model",
    truncated: "damaged",
    one_byte_short: "damaged",
    a_pipe: "not a regular file",
    a_loop_of_links: "symbolic links",
    name_too_long: "cannot be read",
    external_missing: "missing",
    external_parent: "../m.data",
    external_absolute: "/etc/passwd",
    external_link: "link",
    external_short: "which has 10",
    external_huge: "length",
    nan_weight: "NaN",
    infinite_weight: "infinity",
    double_weight: "float32",
    weight_too_small: 'tensor "w"',
    shapes_do_not_fit: "/layer/MatMul",
    text_input: "STRING",
    unsupported_operator: "Hardmax",
    unknown_operator: "Fnord",
    foreign_domain: "com.acme",
    contrib_domain: "com.microsoft",
    control_flow: "control flow",
    opset_too_old: "opset 9",
    opset_too_new: "opset 99",
    symbolic_tokens: '"tokens"',
    no_nodes: "no nodes",
    no_outputs: "no outputs",
    no_graph: "no ONNX graph",
    name_used_twice: "used twice",
    not_sorted: "nothing before it",
    value_from_nowhere: '"ghost"',
    output_of_nobody: 'output "y"',
    declared_shape_contradicts: '"odd"',
    sparse_weight: "sparse",
    own_functions: "functions",
}


@pytest.mark.parametrize("make", BAD_MODELS, ids=lambda make: make.__name__)
def test_a_bad_model_exits_3(gsb, tmp_path, make):
    name = make(tmp_path)
    refused(gsb(tmp_path, "compile", name, *NATIVE, "-o", "out.so"), 3, BAD_MODELS[make])
