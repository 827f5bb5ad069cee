"""Normal forms to Relax: one table, one operator a row."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import tvm
from tvm import relax

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.graph import Graph, Node, Type
from gsb_tvm.frontend.messages import first_sentence

_AGAIN = "Its operands do not fit each other; export the model again."
_ops = relax.op
_nn = relax.op.nn

Emit = Callable[[Node, list[Any], Type], Any]


def to_relax(graph: Graph) -> tvm.IRModule:
    """Return a module with one function ``main`` of one dataflow block.

    Raises
    ------
    ModelError
        If an operator is not in the table or Relax refuses its operands.
    """
    _refuse_unknown(graph)
    builder = relax.BlockBuilder()  # only to infer types: one left half built warns on stderr
    values: dict[str, Any] = {
        name: relax.Var(_identifier(name), relax.TensorType(type_.shape, type_.dtype.name))
        for name, type_ in graph.inputs.items()
    }
    params = list(values.values())
    bindings = [_bind(graph, builder, node, values) for node in graph.nodes]
    for name in graph.outputs:
        if name in graph.inputs or name in graph.constants:
            value = _operand(graph, values, name)
            values[name] = relax.Var(_identifier(name), value.ty)
            bindings.append(relax.VarBinding(values[name], value))
    results = [values[name] for name in graph.outputs]
    body = results[0] if len(results) == 1 else builder.normalize(relax.Tuple(results))
    sequence = relax.SeqExpr([relax.DataflowBlock(bindings)], body)
    main = relax.Function(params, sequence, ret_ty=body.ty).with_attr("global_symbol", "main")
    module = relax.transform.Normalize()(tvm.IRModule({"main": main}))
    relax.analysis.well_formed(module)
    return module


def _refuse_unknown(graph: Graph) -> None:
    known = {*graph.inputs, *graph.constants}
    for node in graph.nodes:
        known.add(node.output)
        missing = next((name for name in node.inputs if name not in known), None)
        if missing is not None:
            raise graph.error(
                node,
                f'it reads "{missing}", a further output of an operator of which only the first '
                "is handled. Export the model without it.",
            )
        if node.domain or node.op not in _TABLE:
            raise graph.error(
                node,
                f"the operator {node.op} is not handled. Rewrite the model without it, or export "
                "it with an opset or exporter that splits it into elementary operators.",
            )
    for name, output in zip(graph.output_names, graph.outputs, strict=True):
        if output not in known:
            raise ModelError(
                f'{graph.name}, output "{name}": it is a further output of an operator of which '
                "only the first is handled. Export the model without it."
            )


def _bind(graph: Graph, builder: Any, node: Node, values: dict[str, Any]) -> Any:
    """Return the binding of a node's output, and note its variable in ``values``."""
    expected = graph.types[node.output]
    try:
        operands = [_operand(graph, values, name) for name in node.inputs]
        value = builder.normalize(_TABLE[node.op](node, operands, expected))
    except Exception as error:  # TVM raises many kinds; all of them mean: this node
        raise graph.error(
            node, f"it cannot be imported ({first_sentence(error)}). {_AGAIN}"
        ) from error
    found = _type_of(value)
    if found != expected:
        raise graph.error(node, f"it was imported as {found}, and ONNX says {expected}. {_AGAIN}")
    kind = relax.Var if node.output in graph.outputs else relax.DataflowVar
    values[node.output] = kind(_identifier(node.label or node.output), value.ty)
    return relax.VarBinding(values[node.output], value)


def _operand(graph: Graph, values: dict[str, Any], name: str) -> Any:
    if name not in values:
        array = graph.constants[name]
        # In C order; without a dtype, relax.const narrows int64.
        packed = np.ascontiguousarray(array).reshape(array.shape)
        values[name] = relax.const(packed, array.dtype.name)
    return values[name]


def _type_of(value: Any) -> Type:
    shape = tuple(int(n) for n in value.ty.shape.values)
    return Type(shape, np.dtype(str(value.ty.dtype)))


def _identifier(name: str) -> str:
    """Return a Relax name: /blocks/blocks.0/attn/MatMul is blocks_0_attn_MatMul."""
    name = re.sub(r"(?:^|(?<=/))([^/]+)/(?=\1\.)", "", name)
    text = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")
    return text if text and not text[0].isdigit() else f"v{text}"


def _call(function: Callable[..., Any], *attrs: str) -> Emit:
    """Wrap a Relax operator whose arguments are a node's inputs and attributes."""

    def emit(node: Node, operands: list[Any], type_: Type) -> Any:
        return function(*operands, **{attr: node.attrs[attr] for attr in attrs})

    return emit


def _reduce(function: Callable[..., Any]) -> Emit:
    def emit(node: Node, operands: list[Any], type_: Type) -> Any:
        (x,) = operands
        axes: list[int] | None = node.attrs["axes"]
        if len(axes or ()) == len(x.ty.shape.values):
            axes = None
        return function(x, axis=axes, keepdims=node.attrs["keepdims"])

    return emit


def _slice(node: Node, operands: list[Any], type_: Type) -> Any:
    a = node.attrs
    return relax.op.strided_slice(operands[0], a["axes"], a["begin"], a["end"], a["strides"])


def _gelu(node: Node, operands: list[Any], type_: Type) -> Any:
    tanh = node.attrs.get("approximate", "none") == "tanh"
    return (_nn.gelu_tanh if tanh else _nn.gelu)(*operands)


def _window(one: Any, two: Any, three: Any, *attrs: str) -> Emit:
    """Choose the operator by the number of spatial axes."""

    def emit(node: Node, operands: list[Any], type_: Type) -> Any:
        function = {3: one, 4: two, 5: three}[len(type_.shape)]
        return function(*operands, **{attr: node.attrs[attr] for attr in attrs})

    return emit


_WINDOW = ("strides", "padding", "dilation")

_TABLE: dict[str, Emit] = {
    "Abs": _call(_ops.abs),
    "Add": _call(_ops.add),
    "And": _call(_ops.logical_and),
    "AveragePool": _window(
        _nn.avg_pool1d,
        _nn.avg_pool2d,
        _nn.avg_pool3d,
        *_WINDOW,
        "pool_size",
        "ceil_mode",
        "count_include_pad",
    ),
    "Cast": lambda node, x, type_: _ops.astype(x[0], type_.dtype.name),
    "Ceil": _call(_ops.ceil),
    "Clip": lambda node, x, type_: _ops.clip(x[0], node.attrs["min"], node.attrs["max"]),
    "Concat": lambda node, x, type_: _ops.concat(x, node.attrs["axis"]),
    "Conv": _window(_nn.conv1d, _nn.conv2d, _nn.conv3d, *_WINDOW, "groups"),
    "Cos": _call(_ops.cos),
    "Div": _call(_ops.divide),
    "Equal": _call(_ops.equal),
    "Erf": _call(_ops.erf),
    "Exp": _call(_ops.exp),
    "Expand": lambda node, x, type_: _ops.broadcast_to(x[0], type_.shape),
    "Floor": _call(_ops.floor),
    "Gelu": _gelu,
    "Greater": _call(_ops.greater),
    "GreaterOrEqual": _call(_ops.greater_equal),
    "LayerNormalization": _call(_nn.layer_norm, "axes", "epsilon"),
    "Less": _call(_ops.less),
    "LessOrEqual": _call(_ops.less_equal),
    "Log": _call(_ops.log),
    "LogSoftmax": _call(_nn.log_softmax, "axis"),
    "MatMul": _call(_ops.matmul),
    "Max": _call(_ops.maximum),
    "MaxPool": _window(
        _nn.max_pool1d, _nn.max_pool2d, _nn.max_pool3d, *_WINDOW, "pool_size", "ceil_mode"
    ),
    "Min": _call(_ops.minimum),
    "Mul": _call(_ops.multiply),
    "Neg": _call(_ops.negative),
    "Not": _call(_ops.logical_not),
    "Or": _call(_ops.logical_or),
    "Pow": _call(_ops.power),
    "ReduceMax": _reduce(_ops.max),
    "ReduceMean": _reduce(_ops.mean),
    "ReduceMin": _reduce(_ops.min),
    "ReduceProd": _reduce(_ops.prod),
    "ReduceSum": _reduce(_ops.sum),
    "Relu": _call(_nn.relu),
    "Reshape": lambda node, x, type_: _ops.reshape(x[0], type_.shape),
    "Round": _call(_ops.round),
    "Sigmoid": _call(_ops.sigmoid),
    "Sign": _call(_ops.sign),
    "Sin": _call(_ops.sin),
    "Slice": _slice,
    "Softmax": _call(_nn.softmax, "axis"),
    "Sqrt": _call(_ops.sqrt),
    "Squeeze": lambda node, x, type_: _ops.squeeze(x[0], node.attrs["axes"]),
    "Sub": _call(_ops.subtract),
    "Take": lambda node, x, type_: _ops.take(x[0], x[1], axis=node.attrs["axis"]),
    "Tanh": _call(_ops.tanh),
    "Tile": _call(_ops.tile, "repeats"),
    "Transpose": lambda node, x, type_: _ops.permute_dims(x[0], node.attrs["perm"]),
    "Unsqueeze": lambda node, x, type_: _ops.expand_dims(x[0], node.attrs["axes"]),
    "Where": _call(_ops.where),
    "Xor": _call(_ops.logical_xor),
}
