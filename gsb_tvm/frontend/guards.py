"""What a model must be before anything is computed from it."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.external import tensors
from gsb_tvm.frontend.graph import Array
from gsb_tvm.frontend.messages import blamed_node, first_sentence, is_plain

OLDEST_OPSET, NEWEST_OPSET = 17, 22
QONNX = frozenset({"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general"})
_AGAIN = "Export the model again."
_FLOATS = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    }
)


def check(proto: onnx.ModelProto, name: str) -> int:
    """Refuse a model that is damaged or beyond what is handled; return its opset.

    ``onnx.checker`` runs last: the cheap checks before it also keep from it what it is known to
    mishandle (deep nesting, references to files).

    Raises
    ------
    ModelError
        Naming the node or tensor, and the way out.
    """
    _check_text(proto, name)
    _check_contents(proto, name)
    opset = _check_opsets(proto, name)
    for node in proto.graph.node:
        _check_node(node, name)
    _check_names(proto.graph, name)
    _check_order(proto.graph, name)
    _check_inputs(proto.graph, name)
    _check_tensors(proto.graph, name)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        node = blamed_node(error)
        where = f"{name}, {node}" if node else name
        raise ModelError(
            f"{where}: onnx.checker refuses the model ({first_sentence(error)}). Export it again."
        ) from error
    return opset


def _check_contents(proto: onnx.ModelProto, name: str) -> None:
    if not proto.HasField("graph"):
        raise ModelError(f"{name}: it holds no ONNX graph; give the path of an .onnx file.")
    graph = proto.graph
    if proto.functions:
        first = proto.functions[0]
        raise ModelError(
            f'{name}: it holds model-local functions (first: "{first.name}"), which are not '
            "handled. Inline them with onnx.inliner.inline_local_functions."
        )
    if not graph.node:
        raise ModelError(f"{name}: its graph has no nodes. Export the model again.")
    if not graph.output:
        raise ModelError(f"{name}: its graph has no outputs. Export the model again.")
    initializers = {tensor.name for tensor in graph.initializer}
    if all(value.name in initializers for value in graph.input):
        raise ModelError(f"{name}: its graph has no inputs. Export the model with its input.")
    if graph.sparse_initializer:
        sparse = graph.sparse_initializer[0].values.name
        raise ModelError(
            f'{name}, tensor "{sparse}": sparse initializers are not handled. Store it densely.'
        )


def _check_text(proto: onnx.ModelProto, name: str) -> None:
    """Refuse names that could not stand in a message: no UTF-8, control characters, endless.

    protobuf hands out what is not UTF-8 as bytes, or raises.
    """
    try:
        good = all(map(is_plain, _texts(proto)))
    except UnicodeDecodeError:
        good = False
    if not good:
        raise ModelError(f"{name}: a name in it is not printable text. The file is damaged.")


def _texts(proto: onnx.ModelProto) -> Iterator[object]:
    graph = proto.graph
    yield from (function.name for function in proto.functions)
    yield from (entry.domain for entry in proto.opset_import)
    yield from (tensor.name for tensor in tensors(graph))
    for value in (*graph.input, *graph.output):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        yield from (a.s.decode() for a in node.attribute if a.type == onnx.AttributeProto.STRING)


def _check_opsets(proto: onnx.ModelProto, name: str) -> int:
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    versions.setdefault("", versions.pop("ai.onnx", 0))
    opset = versions[""]
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        found = f"opset {opset}" if opset else "no opset of the default domain"
        raise ModelError(
            f"{name}: it imports {found}, expected {OLDEST_OPSET} to {NEWEST_OPSET}. Export it "
            "with such an opset, or convert it with onnx.version_converter."
        )
    return opset


def _check_node(node: onnx.NodeProto, name: str) -> None:
    where = _where(node, name)
    if not node.output or not any(node.output):
        raise ModelError(f"{where}: it has no output. Export the model again.")
    for attribute in node.attribute:
        if attribute.HasField("g") or attribute.graphs:
            raise ModelError(
                f"{where}: control flow (If, Loop, Scan and their subgraphs) is not handled. "
                "Export the model with the branch or the number of steps fixed."
            )
        if attribute.ref_attr_name or attribute.HasField("sparse_tensor"):
            raise ModelError(
                f'{where}: its attribute "{attribute.name}" is of a kind that is not handled.'
            )
    if node.domain in ("", "ai.onnx"):
        return
    if node.domain in QONNX and node.op_type == "BipolarQuant":
        if len(node.input) != 2 or len(node.output) != 1:
            raise ModelError(f"{where}: expected two inputs (x, scale) and one output.")
        return
    if node.domain in QONNX:
        raise ModelError(
            f"{where}: of QONNX only BipolarQuant is handled. Export 1-bit quantisers as "
            "BipolarQuant, or lower the others with qonnx."
        )
    if node.domain == "com.microsoft":
        raise ModelError(
            f"{where}: operators of com.microsoft are made by ONNX Runtime's optimiser and are not "
            "handled. Pass the model as it was before that optimisation."
        )
    raise ModelError(
        f'{where}: operators of the domain "{node.domain}" are not handled. Export the model with '
        "the standard operators of ONNX."
    )


def _where(node: onnx.NodeProto, name: str) -> str:
    return f'{name}, {node.op_type} node "{node.name or next(iter(node.output), "")}"'


def _check_names(graph: onnx.GraphProto, name: str) -> None:
    initializers = Counter(tensor.name for tensor in graph.initializer)
    inputs = Counter(value.name for value in graph.input)
    made = Counter(output for node in graph.node for output in node.output if output)
    for kind, counter in (("initializer", initializers), ("input", inputs), ("value", made)):
        twice = next((key for key, count in counter.items() if count > 1), None)
        if twice is not None:
            raise ModelError(f'{name}, {kind} "{twice}": the name is used twice. {_AGAIN}')
    clash = next((key for key in made if key in initializers or key in inputs), None)
    if clash is not None:
        raise ModelError(f'{name}, value "{clash}": the name is used twice. {_AGAIN}')
    outputs = Counter(value.name for value in graph.output)
    known = made.keys() | initializers.keys() | inputs.keys()
    for output, count in outputs.items():
        if output not in known:
            raise ModelError(f'{name}, output "{output}": no node computes it. {_AGAIN}')
        if count > 1:
            raise ModelError(f'{name}, output "{output}": the name is used twice. {_AGAIN}')
    if "" in inputs or "" in initializers:
        raise ModelError(f"{name}: an input or initializer has no name. {_AGAIN}")


def _check_order(graph: onnx.GraphProto, name: str) -> None:
    known = {"", *(t.name for t in graph.initializer), *(v.name for v in graph.input)}
    for node in graph.node:
        missing = next((value for value in node.input if value not in known), None)
        if missing is not None:
            raise ModelError(
                f'{_where(node, name)}: nothing before it computes its input "{missing}". The '
                "exporter wrote a damaged model; try its other exporter or another opset."
            )
        known.update(node.output)


def _check_inputs(graph: onnx.GraphProto, name: str) -> None:
    for value in graph.input:
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            raise ModelError(
                f'{name}, input "{value.name}": it is no tensor with a shape. Export the model '
                "with the input's shape given."
            )


def _check_tensors(graph: onnx.GraphProto, name: str) -> None:
    for tensor in tensors(graph):
        where = f'{name}, tensor "{tensor.name}"'
        if tensor.data_type not in onnx.TensorProto.DataType.values():
            raise ModelError(f"{where}: its element type {tensor.data_type} is unknown. {_AGAIN}")
        try:
            array = onnx.numpy_helper.to_array(tensor)
        except Exception as error:  # onnx raises many kinds for damaged tensors
            raise ModelError(
                f"{where}: its data do not fit its type and shape {list(tensor.dims)} "
                f"({first_sentence(error)}). Export the model again."
            ) from error
        if tensor.data_type in _FLOATS and array.size:
            with np.errstate(invalid="ignore"):  # signalling NaN
                _check_finite(array.astype(np.float32), where)


def _check_finite(array: Array, where: str) -> None:
    if np.isnan(array).any():
        raise ModelError(f"{where}: it holds NaN. Check the checkpoint it was exported from.")
    # One infinity alone is an open bound of a Clip; in a weight it is damage.
    if array.size > 1 and np.isinf(array).any():
        raise ModelError(f"{where}: it holds infinity. Check the checkpoint it was exported from.")
