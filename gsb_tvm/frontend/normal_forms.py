"""One spelling for each construct, with every index, axis and shape an attribute.

After this stage a node's inputs are data only. `RULES` is the table ONNX operator -> rule; a rule
returns the name that stands for the output, or None to keep the node as the rule left it.
"""

import numpy as np

from gsb_tvm.frontend import composed_forms, index_forms, window_forms
from gsb_tvm.frontend.evaluate import REDUCTIONS, axes_of
from gsb_tvm.frontend.graph import Graph, Node, Type
from gsb_tvm.frontend.messages import first_sentence
from gsb_tvm.frontend.rewriter import Rewriter, Rule


def normalise(graph: Graph) -> None:
    """Rewrite every node to its normal form.

    Raises
    ------
    ModelError
        If an axis, shape or index that must be constant is not.
    """
    rewriter = Rewriter(graph)
    for node in graph.nodes:
        node.inputs = [rewriter.alias.get(name, name) for name in node.inputs]
        _constant_second(graph, node)
        try:
            _to_normal_form(rewriter, node)
        except (ValueError, TypeError, LookupError, ArithmeticError) as error:
            raise graph.error(
                node,
                f"it cannot be brought to its normal form ({first_sentence(error)}). Export the "
                "model again.",
            ) from error
    graph.nodes = rewriter.nodes
    graph.outputs = [rewriter.alias.get(name, name) for name in graph.outputs]
    graph.drop_dead()


def _to_normal_form(rw: Rewriter, node: Node) -> None:
    if node.op == "Split":
        index_forms.split(rw, node)
        return
    rule = _reduce if node.op in REDUCTIONS else RULES.get(node.op)
    stands = rule(rw, node) if rule else None
    if stands is None:
        rw.nodes.append(node)
    else:
        rw.alias[node.output] = stands


# Operators whose operands may change places, and what they are called then.
_MIRRORED = {
    "Add": "Add",
    "Equal": "Equal",
    "Greater": "Less",
    "GreaterOrEqual": "LessOrEqual",
    "Less": "Greater",
    "LessOrEqual": "GreaterOrEqual",
    "Mul": "Mul",
}


def _constant_second(graph: Graph, node: Node) -> None:
    if node.op in _MIRRORED and node.inputs[0] in graph.constants:
        node.op, node.inputs = _MIRRORED[node.op], node.inputs[::-1]


def _same(rw: Rewriter, node: Node) -> str | None:
    return node.inputs[0]


def _cast(rw: Rewriter, node: Node) -> str | None:
    if rw.type(node.inputs[0]).dtype == rw.type(node.output).dtype:
        return node.inputs[0]
    node.op, node.inputs, node.attrs = "Cast", node.inputs[:1], {}
    return _cast_choice(rw, node)


def _cast_choice(rw: Rewriter, node: Node) -> str | None:
    """Cast of a choice between two constants is a choice between the cast constants."""
    choice = rw.producer(node.inputs[0])
    if choice is None or choice.op != "Where":
        return None
    branches = [rw.graph.value(name) for name in choice.inputs[1:]]
    type_ = rw.type(node.output)
    cast = [
        rw.graph.add_constant(array.astype(type_.dtype)) for array in branches if array is not None
    ]
    if len(cast) < 2:
        return None
    return rw.emit("Where", [choice.inputs[0], *cast], type_, node)


def _clip(rw: Rewriter, node: Node) -> str | None:
    low, high = (
        rw.constant(node, i, "bound").reshape(()).item() if node.input(i) else None for i in (1, 2)
    )
    low = None if low == -np.inf else low
    high = None if high == np.inf else high
    if low is None and high is None:
        return node.inputs[0]
    node.inputs = node.inputs[:1]
    if low is not None and high is not None:
        # ONNX gives the upper bound where they cross; TVM would give the lower one.
        node.attrs = {"min": min(low, high), "max": high}
        return None
    node.op = "Max" if high is None else "Min"
    bound = low if high is None else high
    node.inputs.append(rw.graph.add_constant(np.array(bound, rw.type(node.output).dtype)))
    return None


def _power(rw: Rewriter, node: Node) -> str | None:
    exponent = rw.graph.value(node.inputs[1])
    if exponent is None or exponent.size != 1:
        return None
    base, value = node.inputs[0], float(exponent.reshape(()))
    if exponent.dtype != rw.type(base).dtype:
        node.inputs[1] = rw.graph.add_constant(exponent.astype(rw.type(base).dtype))
    if rw.type(base).shape != rw.type(node.output).shape:
        return None
    if value == 1.0:
        return base
    if value == 2.0:
        node.op, node.inputs = "Mul", [base, base]
    elif value == 0.5:
        node.op, node.inputs = "Sqrt", [base]
    return None


def _fold_left(rw: Rewriter, node: Node) -> str | None:
    """Make Max, Min or Sum of several operands a chain of binary ones."""
    op = "Add" if node.op == "Sum" else node.op
    if len(node.inputs) == 1:
        return node.inputs[0]
    value = node.inputs[0]
    for other in node.inputs[1:-1]:
        shape = np.broadcast_shapes(rw.type(value).shape, rw.type(other).shape)
        value = rw.emit(op, [value, other], Type(shape, rw.type(value).dtype), node)
    node.op, node.inputs = op, [value, node.inputs[-1]]
    return None


def _softmax(rw: Rewriter, node: Node) -> str | None:
    node.attrs = {"axis": int(node.attrs.get("axis", -1)) % len(rw.type(node.output).shape)}
    return None


def _reduce(rw: Rewriter, node: Node) -> str | None:
    if node.input(1):
        rw.constant(node, 1, "list of axes")
    axes = axes_of(rw.operands(node), node.attrs)
    x = node.inputs[0]
    type_ = rw.type(x)
    if not axes and node.attrs.get("noop_with_empty_axes", 0):
        return x
    rank = len(type_.shape)
    axes = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    node.attrs = {"axes": axes, "keepdims": node.attrs.get("keepdims", 1) == 1}
    node.inputs = [x]
    if node.op == "ReduceL1":
        node.op, node.inputs = "ReduceSum", [rw.emit("Abs", [x], type_, node)]
    elif node.op in ("ReduceL2", "ReduceSumSquare"):
        squares = rw.emit("Mul", [x, x], type_, node)
        if node.op == "ReduceL2":
            total = rw.emit("ReduceSum", [squares], rw.type(node.output), node, **node.attrs)
            node.op, node.inputs, node.attrs = "Sqrt", [total], {}
        else:
            node.op, node.inputs = "ReduceSum", [squares]
    return None


def _gemm(rw: Rewriter, node: Node) -> str | None:
    """Gemm becomes MatMul and Add, with a constant factor a transposed constant."""
    a, b = (
        _transposed(rw, node, node.inputs[i], bool(node.attrs.get(key, 0)))
        for i, key in ((0, "transA"), (1, "transB"))
    )
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    type_ = rw.type(node.output)
    product = rw.emit("MatMul", [a, b], type_, node)
    if alpha != 1.0:
        product = _scaled(rw, node, product, alpha)
    if not node.input(2) or beta == 0.0:
        return product
    bias = node.inputs[2] if beta == 1.0 else _scaled(rw, node, node.inputs[2], beta)
    node.op, node.inputs, node.attrs = "Add", [product, bias], {}
    return None


def _transposed(rw: Rewriter, node: Node, name: str, wanted: bool) -> str:
    if not wanted:
        return name
    array = rw.graph.value(name)
    if array is not None:
        return rw.graph.add_constant(np.ascontiguousarray(array.T), name)
    type_ = rw.type(name)
    return rw.emit("Transpose", [name], Type(type_.shape[::-1], type_.dtype), node, perm=[1, 0])


def _scaled(rw: Rewriter, node: Node, name: str, factor: float) -> str:
    type_ = rw.type(name)
    array = rw.graph.value(name)
    if array is not None:
        return rw.graph.add_constant((array * type_.dtype.type(factor)).astype(type_.dtype), name)
    return rw.emit("Mul", [name, rw.graph.add_constant(np.array(factor, type_.dtype))], type_, node)


def _global_average(rw: Rewriter, node: Node) -> str | None:
    rank = len(rw.type(node.inputs[0]).shape)
    node.op, node.attrs = "ReduceMean", {"axes": list(range(2, rank)), "keepdims": True}
    return None


RULES: dict[str, Rule] = {
    "AveragePool": window_forms.average_pool,
    "BatchNormalization": composed_forms.batch_norm,
    "BipolarQuant": composed_forms.bipolar,
    "Cast": _cast,
    "CastLike": _cast,
    "Clip": _clip,
    "Concat": index_forms.concat,
    "Conv": window_forms.convolution,
    "Dropout": _same,
    "Expand": index_forms.expand,
    "Flatten": index_forms.reshape,
    "Gather": index_forms.gather,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
    "HardSigmoid": composed_forms.hard_sigmoid,
    "HardSwish": composed_forms.hard_swish,
    "Identity": _same,
    "InstanceNormalization": composed_forms.instance_norm,
    "LayerNormalization": composed_forms.layer_norm,
    "LeakyRelu": composed_forms.leaky,
    "Max": _fold_left,
    "MaxPool": window_forms.max_pool,
    "Min": _fold_left,
    "PRelu": composed_forms.prelu,
    "Pad": composed_forms.pad,
    "Pow": _power,
    "Reciprocal": composed_forms.reciprocal,
    "Reshape": index_forms.reshape,
    "Resize": composed_forms.resize,
    "Slice": index_forms.slice_,
    "LogSoftmax": _softmax,
    "Softmax": _softmax,
    "Squeeze": index_forms.reshape,
    "Sum": _fold_left,
    "Tile": index_forms.tile,
    "Transpose": index_forms.transpose,
    "Unsqueeze": index_forms.reshape,
}
