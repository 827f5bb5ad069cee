"""Normal forms of the operators that only move values: shapes and indices become attributes."""

import math

import numpy as np

from gsb_tvm.frontend.evaluate import axes_of, slice_spec, split_sizes
from gsb_tvm.frontend.graph import Node, Type
from gsb_tvm.frontend.rewriter import Rewriter


def reshape(rw: Rewriter, node: Node) -> str | None:
    """Reshape, Flatten, Squeeze and Unsqueeze: the result's type says all."""
    shape = rw.type(node.output).shape
    found = rw.type(node.inputs[0]).shape
    if found == shape:
        return node.inputs[0]
    if math.prod(found) != math.prod(shape):
        raise rw.graph.error(
            node,
            f"it gives {list(found)} the shape {list(shape)}, which has another number of "
            "elements. Export the model again.",
        )
    if node.op in ("Squeeze", "Unsqueeze"):
        given = axes_of(rw.operands(node), node.attrs)
        x = rw.type(node.inputs[0]).shape
        rank = len(shape) if node.op == "Unsqueeze" else len(x)
        axes = [i for i, n in enumerate(x) if n == 1] if given is None else given
        node.attrs = {"axes": sorted(axis % rank for axis in axes)}
    else:
        node.op, node.attrs = "Reshape", {"shape": list(shape)}
    node.inputs = node.inputs[:1]
    return None


def transpose(rw: Rewriter, node: Node) -> str | None:
    """Transpose with its permutation; the identity goes."""
    rank = len(rw.type(node.output).shape)
    perm = [int(axis) for axis in node.attrs.get("perm", range(rank)[::-1])]
    node.attrs = {"perm": perm}
    return node.inputs[0] if perm == list(range(rank)) else None


def expand(rw: Rewriter, node: Node) -> str | None:
    """Expand with its shape; one that changes nothing goes."""
    if rw.type(node.inputs[0]).shape == rw.type(node.output).shape:
        return node.inputs[0]
    node.op, node.inputs = "Expand", node.inputs[:1]
    node.attrs = {"shape": list(rw.type(node.output).shape)}
    return None


def tile(rw: Rewriter, node: Node) -> str | None:
    """Tile with its repeats; one that changes nothing goes."""
    repeats = [int(n) for n in rw.constant(node, 1, "number of repeats")]
    node.inputs, node.attrs = node.inputs[:1], {"repeats": repeats}
    return node.inputs[0] if all(n == 1 for n in repeats) else None


def slice_(rw: Rewriter, node: Node) -> str | None:
    """Slice with axes, begins, ends and strides inside the shape; a full one goes."""
    for index, what in ((1, "start"), (2, "end"), (3, "axes"), (4, "step")):
        if node.input(index):
            rw.constant(node, index, what)
    shape = rw.type(node.inputs[0]).shape
    spec = slice_spec(shape, rw.operands(node))
    spec = [part for part in spec if part[1:] != (0, shape[part[0]], 1)]
    node.inputs = node.inputs[:1]
    if not spec:
        return node.inputs[0]
    axes, begin, end, strides = (list(column) for column in zip(*sorted(spec), strict=True))
    # A run down to element 0 ends before it; Relax counts an end of -1 from the back.
    end = [
        -shape[a] - 1 if s < 0 and e < 0 else e for a, s, e in zip(axes, strides, end, strict=True)
    ]
    node.attrs = {"axes": axes, "begin": begin, "end": end, "strides": strides}
    return None


def _slice_at(rw: Rewriter, node: Node, x: str, axis: int, begin: int, end: int) -> str:
    type_ = rw.type(x)
    shape = (*type_.shape[:axis], end - begin, *type_.shape[axis + 1 :])
    if shape == type_.shape:
        return x
    cut: dict[str, object] = {"axes": [axis], "begin": [begin], "end": [end], "strides": [1]}
    return rw.emit("Slice", [x], Type(shape, type_.dtype), node, **cut)


def split(rw: Rewriter, node: Node) -> None:
    """Split becomes one Slice an output."""
    if node.input(1):
        rw.constant(node, 1, "list of sizes")
    shape = rw.type(node.inputs[0]).shape
    axis = int(node.attrs.get("axis", 0)) % len(shape)
    begin = 0
    sizes = split_sizes(shape[axis], len(node.outputs), rw.operands(node), node.attrs)
    for name, size in zip(node.outputs, sizes, strict=True):
        rw.alias[name] = _slice_at(rw, node, node.inputs[0], axis, begin, begin + size)
        begin += size


def gather(rw: Rewriter, node: Node) -> str | None:
    """Gather at one constant index becomes Slice and Squeeze; at a list of them, Take."""
    type_ = rw.type(node.inputs[0])
    axis = int(node.attrs.get("axis", 0)) % len(type_.shape)
    index = rw.graph.value(node.inputs[1])
    node.attrs = {"axis": axis}
    if index is None:
        node.op = "Take"
        return None
    size = type_.shape[axis]
    if index.size and not (-size <= index.min() and index.max() < size):
        raise rw.graph.error(
            node, f"its index is outside axis {axis} of size {size}. Export it again."
        )
    index = np.where(index < 0, index + size, index).astype(np.int64)
    if index.size != 1:
        node.op, node.inputs[1] = "Take", rw.graph.add_constant(index, "index")
        return None
    i = int(index.reshape(()))
    cut = _slice_at(rw, node, node.inputs[0], axis, i, i + 1)
    shape = rw.type(node.output).shape
    if rw.type(cut).shape == shape:
        return cut
    node.inputs = [cut]
    node.op, node.attrs = (
        ("Squeeze", {"axes": [axis]})
        if index.ndim == 0
        else (
            "Reshape",
            {"shape": list(shape)},
        )
    )
    return None


def concat(rw: Rewriter, node: Node) -> str | None:
    """Concat with its axis counted from the front."""
    if len(node.inputs) == 1:
        return node.inputs[0]
    node.attrs = {"axis": int(node.attrs["axis"]) % len(rw.type(node.output).shape)}
    return None
