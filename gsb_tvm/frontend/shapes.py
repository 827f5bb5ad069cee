"""Static shapes: the batch is fixed, every value gets a type, shape arithmetic becomes constants.

Types come from ONNX's own rule of each operator, node by node; values that exist only to compute
shapes are evaluated on the way, so that Reshape and Expand see numbers.
"""

from typing import Any

import numpy as np
import onnx

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.evaluate import evaluate
from gsb_tvm.frontend.graph import Graph, Node, Type
from gsb_tvm.frontend.messages import first_sentence
from gsb_tvm.frontend.scatter import simplify_scatter

# Larger values than this are damage, not a model: 2^28 elements are 1 GiB of float32.
MAX_ELEMENTS = 2**28
# A shape operand longer than this is data, not a shape.
MAX_SHAPE_OPERAND = 4096


_AGAIN = "Export the model again."


class DataDependentShape(ModelError):
    """A shape that only a run of the model would tell; an error if an output needs the value."""


def infer_static_shapes(graph: Graph) -> None:
    """Give every value a type, fold what depends on shapes alone, drop what no output needs.

    Raises
    ------
    ModelError
        If a shape depends on the input's values, or an operator's operands do not fit.
    """
    from_shape: set[str] = set()
    unknown: dict[str, ModelError] = {}
    producers: dict[str, Node] = {}
    kept = []
    for node in graph.nodes:
        simplify_scatter(graph, node, producers)
        producers.update(dict.fromkeys(node.outputs, node))
        blamed = next((unknown[name] for name in node.inputs if name in unknown), None)
        if blamed is None and _fold(graph, node, from_shape):
            continue
        kept.append(node)
        try:
            graph.types.update(_infer(graph, node) if blamed is None else {})
        except DataDependentShape as error:
            blamed = error
        if blamed is not None:
            unknown.update(dict.fromkeys(node.outputs, blamed))
    graph.nodes = kept
    graph.drop_dead()
    for name in (name for node in graph.nodes for name in node.outputs):
        if name in unknown:
            raise unknown[name]


def _fold(graph: Graph, node: Node, from_shape: set[str]) -> bool:
    """Evaluate a node of shape arithmetic; say whether it was one."""
    if node.op in ("Shape", "Size") and not node.domain:
        shape = np.array(graph.types[node.inputs[0]].shape, np.int64)
        shape = shape[node.attrs.get("start", 0) : node.attrs.get("end")]
        graph.set_constant(
            node.output, shape if node.op == "Shape" else np.array(shape.prod(), np.int64)
        )
        from_shape.add(node.output)
        return True
    operands = [graph.value(name) if name else None for name in node.inputs]
    present = [array for array in operands if array is not None]
    if len(present) != sum(bool(name) for name in node.inputs):
        return False
    integers = all(array.dtype.kind in "biu" for array in present)
    if not (integers or from_shape.intersection(node.inputs)):
        return False
    _infer(graph, node)  # refuses results of absurd size before they are allocated
    try:
        results = evaluate(node.op, operands, node.attrs)
    except (ValueError, TypeError, IndexError, KeyError, MemoryError, OverflowError) as error:
        raise graph.error(
            node, f"cannot be computed ({first_sentence(error)}). {_AGAIN}"
        ) from error
    if results is None:
        return False
    for name, array in zip(node.outputs, results, strict=False):
        graph.set_constant(name, array)
        from_shape.add(name)
    return True


def _infer(graph: Graph, node: Node) -> dict[str, Type]:
    if node.domain:
        return _infer_foreign(graph, node)
    try:
        schema = onnx.defs.get_schema(node.op, max_inclusive_version=graph.opset)
        types = onnx.shape_inference.infer_node_outputs(
            schema,
            _proto(node, graph.opset),
            {name: _type_proto(graph.types[name]) for name in node.inputs if name},
            _shape_operands(graph, node),
            opset_imports=[onnx.helper.make_opsetid("", graph.opset)],
        )
    except KeyError as error:
        raise graph.error(node, f"reads {error}, whose shape is not known.") from error
    except (
        onnx.checker.ValidationError,
        onnx.defs.SchemaError,
        onnx.shape_inference.InferenceError,
        RuntimeError,
    ) as error:
        raise graph.error(
            node, f"its operands do not fit ({first_sentence(error)}). {_AGAIN}"
        ) from error
    return {name: _type_of(graph, node, name, types.get(name)) for name in node.outputs if name}


def _infer_foreign(graph: Graph, node: Node) -> dict[str, Type]:
    """Type the one foreign operator the guards let through, QONNX's BipolarQuant."""
    x, scale = (graph.types[name] for name in node.inputs[:2])
    try:
        shape = np.broadcast_shapes(x.shape, scale.shape)
    except ValueError as error:
        raise graph.error(
            node, f"input {x} and scale {scale} do not broadcast to one shape."
        ) from error
    return {node.output: Type(shape, x.dtype)}


def _shape_operands(graph: Graph, node: Node) -> dict[str, onnx.TensorProto]:
    data = {}
    for name in node.inputs:
        array = graph.constants.get(name)
        if array is not None and array.size <= MAX_SHAPE_OPERAND:
            data[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
    return data


def _proto(node: Node, opset: int) -> onnx.NodeProto:
    attrs: dict[str, Any] = {}
    for key, value in node.attrs.items():
        if node.op == "Split" and key == "num_outputs" and (len(node.inputs) > 1 or opset < 18):
            continue  # ours, for the evaluator; ONNX has it since opset 18 and without sizes only
        if isinstance(value, np.ndarray):
            value = onnx.numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape))
        attrs[key] = value
    return onnx.helper.make_node(node.op, node.inputs, node.outputs, node.name, **attrs)


def _type_proto(type_: Type) -> onnx.TypeProto:
    element = onnx.helper.np_dtype_to_tensor_dtype(type_.dtype)
    return onnx.helper.make_tensor_type_proto(element, type_.shape)


def _type_of(graph: Graph, node: Node, name: str, proto: onnx.TypeProto | None) -> Type:
    if proto is None or not proto.HasField("tensor_type"):
        raise graph.error(node, f'its output "{name}" is not a tensor, which is not handled.')
    tensor = proto.tensor_type
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in tensor.shape.dim):
        raise DataDependentShape(
            f'{graph.name}, {node}: the shape of its output "{name}" depends on the input\'s '
            "values, and only static shapes are compiled. Export the model without such operators."
        )
    shape = tuple(d.dim_value for d in tensor.shape.dim)
    elements = 1
    for n in shape:
        elements *= n
    if elements > MAX_ELEMENTS or min(shape, default=1) < 0:
        raise graph.error(
            node,
            f'its output "{name}" has shape {list(shape)}, beyond the limit of {MAX_ELEMENTS} '
            "elements.",
        )
    return Type(shape, np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))


def fix_batch(graph: Graph, protos: list[onnx.ValueInfoProto], batch: int | None) -> None:
    """Set ``graph.inputs`` from their declarations, with the batch in place of a symbolic axis 0.

    Raises
    ------
    ModelError
        If an axis other than the batch is symbolic, or ``batch`` contradicts a fixed one.
    """
    symbols: set[str] = set()
    for proto in protos:
        graph.inputs[proto.name] = _input_type(graph, proto, batch, symbols)
    if len(symbols - {""}) > 1:
        raise ModelError(
            f"{graph.name}: the inputs' first axes have different symbolic sizes "
            f"({', '.join(sorted(symbols))}), and only the batch may be symbolic. Export the model "
            "with the other sizes fixed."
        )
    if symbols:
        symbol = max(symbols)
        size = 1 if batch is None else batch
        graph.batch = size
        graph.notes.append(f"dynamic batch {symbol!r} fixed to {size}")
    graph.types.update(graph.inputs)


def _input_type(
    graph: Graph, proto: onnx.ValueInfoProto, batch: int | None, symbols: set[str]
) -> Type:
    tensor = proto.type.tensor_type
    where = f'{graph.name}, input "{proto.name}"'
    shape = []
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value"):
            if dim.dim_value < 1:
                raise ModelError(f"{where}: axis {axis} has size {dim.dim_value}, not at least 1.")
            if axis == 0 and batch is not None and dim.dim_value != batch and not symbols:
                raise ModelError(
                    f"{where}: the model was exported for batch {dim.dim_value}, not {batch}. "
                    "Export it again with that batch or with a dynamic one."
                )
            shape.append(dim.dim_value)
        elif axis == 0 or (dim.dim_param and dim.dim_param in symbols):
            symbols.add(dim.dim_param)
            shape.append(1 if batch is None else batch)
        else:
            raise ModelError(
                f'{where}: axis {axis} has the symbolic size "{dim.dim_param}", and only the batch '
                "(axis 0) may be symbolic. Export the model with this size fixed."
            )
    return Type(tuple(shape), _input_dtype(graph, where, tensor.elem_type))


def _input_dtype(graph: Graph, where: str, element: int) -> np.dtype[Any]:
    names = onnx.TensorProto.DataType
    known = {
        onnx.TensorProto.FLOAT: np.float32,
        onnx.TensorProto.INT32: np.int32,
        onnx.TensorProto.INT64: np.int64,
        onnx.TensorProto.BOOL: np.bool_,
    }
    if element not in known:
        raise ModelError(
            f"{where}: its elements are {names.Name(element)}, expected FLOAT (or INT32, INT64, "
            "BOOL for indices and masks). Export the model in float32."
        )
    if element != onnx.TensorProto.FLOAT:
        graph.notes.append(f"{where.split(', ', 1)[1]} is {names.Name(element)}, not FLOAT")
    return np.dtype(known[element])
