"""Normal forms of operators that are a few elementary ones: norms, gates, resizing, padding."""

import numpy as np

from gsb_tvm.frontend.graph import Node, Type
from gsb_tvm.frontend.rewriter import Rewriter


def batch_norm(rw: Rewriter, node: Node) -> str | None:
    """Batch norm of constant statistics becomes Mul and Add with one value a channel."""
    gamma, beta, mean, variance = (
        rw.constant(node, i, what).astype(np.float64)
        for i, what in ((1, "scale"), (2, "shift"), (3, "mean"), (4, "variance"))
    )
    factor = gamma / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    type_ = rw.type(node.inputs[0])
    shape = (-1, *[1] * (len(type_.shape) - 2))
    factors, shifts = (
        rw.graph.add_constant(array.reshape(shape).astype(type_.dtype), node.output)
        for array in (factor, beta - mean * factor)
    )
    product = rw.emit("Mul", [node.inputs[0], factors], type_, node)
    node.op, node.inputs, node.attrs = "Add", [product, shifts], {}
    node.outputs = node.outputs[:1]
    return None


def instance_norm(rw: Rewriter, node: Node) -> str | None:
    """Mean, centre, square, mean, eps, root, divide, scale, shift over the spatial axes."""
    x = node.inputs[0]
    type_ = rw.type(x)
    axes = list(range(2, len(type_.shape)))
    small = Type((*type_.shape[:2], *[1] * len(axes)), type_.dtype)
    epsilon = np.array(node.attrs.get("epsilon", 1e-5), type_.dtype)
    gamma, beta = (
        rw.graph.add_constant(rw.constant(node, i, what).reshape(small.shape[1:]), node.output)
        for i, what in ((1, "scale"), (2, "shift"))
    )
    mean = rw.emit("ReduceMean", [x], small, node, axes=axes, keepdims=True)
    centred = rw.emit("Sub", [x, mean], type_, node)
    squares = rw.emit("Mul", [centred, centred], type_, node)
    variance = rw.emit("ReduceMean", [squares], small, node, axes=axes, keepdims=True)
    offset = rw.emit("Add", [variance, rw.graph.add_constant(epsilon)], small, node)
    root = rw.emit("Sqrt", [offset], small, node)
    divided = rw.emit("Div", [centred, root], type_, node)
    scaled = rw.emit("Mul", [divided, gamma], type_, node)
    node.op, node.inputs, node.attrs = "Add", [scaled, beta], {}
    return None


def layer_norm(rw: Rewriter, node: Node) -> str | None:
    """LayerNormalization with its axes listed and a shift, zeros where ONNX has none."""
    type_ = rw.type(node.inputs[0])
    axis = int(node.attrs.get("axis", -1)) % len(type_.shape)
    if not node.input(2):
        zeros = np.zeros(type_.shape[axis:], type_.dtype)
        node.inputs = [*node.inputs[:2], rw.graph.add_constant(zeros)]
    node.outputs = node.outputs[:1]
    epsilon = float(node.attrs.get("epsilon", 1e-5))
    node.attrs = {"axes": list(range(axis, len(type_.shape))), "epsilon": epsilon}
    return None


def bipolar(rw: Rewriter, node: Node) -> str | None:
    """QONNX: +scale where x >= 0, −scale elsewhere (NaN included)."""
    x, scale = node.inputs[:2]
    plus = rw.constant(node, 1, "scale")
    zero = rw.graph.add_constant(np.zeros((), rw.type(x).dtype))
    minus = rw.graph.add_constant(-plus)
    holds = rw.emit("GreaterOrEqual", [x, zero], Type(rw.type(x).shape, np.dtype(bool)), node)
    node.op, node.domain, node.attrs = "Where", "", {}
    node.inputs = [holds, scale, minus]
    return None


def prelu(rw: Rewriter, node: Node) -> str | None:
    """x where x >= 0, slope * x elsewhere."""
    x, slope = node.inputs
    type_ = rw.type(x)
    scaled = rw.emit("Mul", [x, slope], type_, node)
    zero = rw.graph.add_constant(np.zeros((), type_.dtype))
    below = rw.emit("Less", [x, zero], Type(type_.shape, np.dtype(bool)), node)
    node.op, node.inputs = "Where", [below, scaled, x]
    return None


def leaky(rw: Rewriter, node: Node) -> str | None:
    """A PRelu with one slope."""
    slope = np.array(node.attrs.get("alpha", 0.01), rw.type(node.output).dtype)
    node.inputs = [node.inputs[0], rw.graph.add_constant(slope)]
    node.attrs = {}
    return prelu(rw, node)


def hard_sigmoid(rw: Rewriter, node: Node) -> str | None:
    """clip(alpha x + beta, 0, 1)."""
    alpha, beta = node.attrs.get("alpha", 0.2), node.attrs.get("beta", 0.5)
    node.op, node.attrs = "Clip", {"min": 0.0, "max": 1.0}
    node.inputs = [_affine(rw, node, node.inputs[0], alpha, beta)]
    return None


def hard_swish(rw: Rewriter, node: Node) -> str | None:
    """x clip(x / 6 + 1/2, 0, 1)."""
    x = node.inputs[0]
    inner = _affine(rw, node, x, 1 / 6, 0.5)
    gate = rw.emit("Clip", [inner], rw.type(x), node, min=0.0, max=1.0)
    node.op, node.inputs = "Mul", [x, gate]
    return None


def _affine(rw: Rewriter, node: Node, x: str, factor: float, shift: float) -> str:
    type_ = rw.type(x)
    factors, shifts = (rw.graph.add_constant(np.array(v, type_.dtype)) for v in (factor, shift))
    return rw.emit("Add", [rw.emit("Mul", [x, factors], type_, node), shifts], type_, node)


def reciprocal(rw: Rewriter, node: Node) -> str | None:
    """1 / x."""
    one = rw.graph.add_constant(np.ones((), rw.type(node.output).dtype))
    node.op, node.inputs = "Div", [one, node.inputs[0]]
    return None


def pad(rw: Rewriter, node: Node) -> str | None:
    """Pad with a constant becomes Concat with constants, one axis after the other."""
    x, type_ = node.inputs[0], rw.type(node.inputs[0])
    rank = len(type_.shape)
    pads = [int(n) for n in rw.constant(node, 1, "list of pads")]
    value = rw.constant(node, 2, "value") if node.input(2) else np.zeros((), type_.dtype)
    given = rw.constant(node, 3, "list of axes") if node.input(3) else np.arange(rank)
    axes = [int(axis) % rank for axis in given]
    if node.attrs.get("mode", "constant") != "constant" or min(pads, default=0) < 0:
        raise rw.graph.error(
            node, "only padding by a constant, of no negative width, is handled. Export it so."
        )
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        parts = [
            _filled(rw, rw.type(x), axis, before, value),
            [x],
            _filled(rw, rw.type(x), axis, after, value),
        ]
        shape = list(rw.type(x).shape)
        shape[axis] += before + after
        names = [name for part in parts for name in part]
        if len(names) > 1:
            x = rw.emit("Concat", names, Type(tuple(shape), type_.dtype), node, axis=axis)
    return x


def _filled(rw: Rewriter, type_: Type, axis: int, width: int, value: np.ndarray) -> list[str]:
    shape = (*type_.shape[:axis], width, *type_.shape[axis + 1 :])
    filled = np.full(shape, value.reshape(()), type_.dtype)
    return [rw.graph.add_constant(filled)] if width else []


def resize(rw: Rewriter, node: Node) -> str | None:
    """Resize to the nearest element by whole factors repeats elements: Reshape, Expand, Reshape."""
    x, type_, shape = node.inputs[0], rw.type(node.inputs[0]), rw.type(node.output).shape
    whole = all(new % old == 0 for new, old in zip(shape, type_.shape, strict=True))
    how = (
        node.attrs.get("mode", "nearest"),
        node.attrs.get("coordinate_transformation_mode", "half_pixel"),
        node.attrs.get("nearest_mode", "round_prefer_floor"),
    )
    # By whole factors, these pick element i // factor; other modes shift by one somewhere.
    repeats = (("nearest", "asymmetric", "floor"), ("nearest", "half_pixel", "round_prefer_floor"))
    if not whole or how not in repeats or len(shape) != len(type_.shape):
        raise rw.graph.error(
            node,
            f"it resizes {list(type_.shape)} to {list(shape)} by {', '.join(how)}, and only the "
            "nearest element by whole factors is handled. Export the model at a size that fits.",
        )
    if shape == type_.shape:
        return x
    apart = [n for old in type_.shape for n in (old, 1)]
    repeated = [n for old, new in zip(type_.shape, shape, strict=True) for n in (old, new // old)]
    split = rw.emit("Reshape", [x], Type(tuple(apart), type_.dtype), node, shape=apart)
    full = rw.emit("Expand", [split], Type(tuple(repeated), type_.dtype), node, shape=repeated)
    node.op, node.inputs, node.attrs = "Reshape", [full], {"shape": list(shape)}
    return None
