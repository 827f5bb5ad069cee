"""Operators that only rename elements, and what they do to index maps."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.rewriting import Expr, Graph

Index = npt.NDArray[Any]

VIEWS = (
    "relax.reshape",
    "relax.permute_dims",
    "relax.squeeze",
    "relax.expand_dims",
    "relax.strided_slice",
    "relax.split",
)


def apply_view(call: Expr, array: Index, item: int = 0) -> Index:
    """What a view does to a NumPy array of its operand's shape; ``item`` of a split."""
    name = call.op.name
    if name == "relax.permute_dims":
        axes = call.attrs.axes
        return array.transpose(None if axes is None else [int(axis) for axis in axes])
    if name == "relax.split":
        return _split(call, array, item)
    if name == "relax.strided_slice":
        return _slice(call, array)
    return array.reshape(shape_of(call))


def _split(call: Expr, array: Index, item: int) -> Index:
    axis = int(call.attrs.axis)
    parts = call.attrs.indices_or_sections
    if hasattr(parts, "value") or isinstance(parts, int):
        return np.split(array, int(parts), axis=axis)[item]
    return np.split(array, [int(at) for at in parts], axis=axis)[item]


def _slice(call: Expr, array: Index) -> Index:
    axes, begin, end = ([int(x) for x in field] for field in call.args[1:4])
    strides = [int(x) for x in call.args[4]] if len(call.args) > 4 else [1] * len(axes)
    index = [slice(None)] * array.ndim
    for axis, first, last, stride in zip(axes, begin, end, strides, strict=True):
        index[axis] = slice(first, last, stride)
    return array[tuple(index)]


def view_source(expr: Expr, graph: Graph) -> tuple[Expr, list[tuple[Expr, int]]]:
    """Tensor behind a chain of views, and the chain's calls (with split items), source first."""
    calls: list[tuple[Expr, int]] = []
    while True:
        value, item = graph.producer(expr), 0
        if isinstance(value, relax.TupleGetItem):
            item, value = value.index, graph.producer(value.tuple_value)
            if not is_call(value, "relax.split"):
                break
        elif not any(is_call(value, name) for name in VIEWS):
            break
        calls.append((value, item))
        expr = value.args[0]
    return expr, calls[::-1]


def view_index(source: Expr, calls: list[tuple[Expr, int]]) -> Index:
    """Flat index into ``source`` of every element after the views."""
    shape = shape_of(source)
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    for call, item in calls:
        index = apply_view(call, index, item)
    return index
