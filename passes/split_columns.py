"""Give each user of some columns of a dense layer a dense layer of its own."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.rewriting import (
    Expr,
    Graph,
    constant,
    literal,
    operand_pair,
    payload,
    rewrite_pass,
)
from gsb_tvm.passes.views import VIEWS, apply_view

_STEPS = {
    "relax.add": relax.op.add,
    "relax.multiply": relax.op.multiply,
    "relax.subtract": relax.op.subtract,
    "relax.divide": relax.op.divide,
}
_READERS = ("gsb.sign", "gsb.mask", "relax.max", "relax.min")
Index = npt.NDArray[Any]


def SplitColumns() -> Pass:
    """Compute the columns that one reader takes, in head layout, by a product of their own.

    Before  y = gsb.matmul(a, w (k, 3 H d)) + bias;  q = split(reshape, permute, split of y) + move
    After   y = gsb.matmul(a, w[:, columns of q]) + bias' + move';  q = permute(reshape(y))
    Requires   the reader's tensor takes whole columns: (batch, tokens, heads, width) in the order
               (batch, heads, tokens, width); constants between are the same for every token
    Leaves alone   tensors that take all columns in order after the last float step, gather tokens,
                   or mix live operands
    Exact   yes: the same products and the same float steps on fewer columns
    Source   GSB, arXiv 2305.07931, fused qkv projection
    """
    return rewrite_pass("SplitColumns", lambda: _Splitter().visit)


class _Splitter:
    def __init__(self) -> None:
        self._replaced: dict[Any, Expr] = {}

    def visit(self, var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
        """Replace the tensor that a sign, mask or extremum reads."""
        if not any(is_call(value, name) for name in _READERS):
            return None
        x = value.args[0]
        if x not in self._replaced:
            self._replaced[x] = _own_columns(x, graph)
        new = self._replaced[x]
        if new is x:
            return None
        return relax.Call(value.op, [new, *value.args[1:]], value.attrs)


def _trace(expr: Expr, graph: Graph) -> tuple[Expr, list[tuple[Expr, int]]] | None:
    """The dense product behind ``expr`` and the calls from it to ``expr``, in order."""
    calls: list[tuple[Expr, int]] = []
    while True:
        value, item = graph.producer(expr), 0
        if isinstance(value, relax.TupleGetItem):
            item, value = value.index, graph.producer(value.tuple_value)
        if is_call(value, "gsb.matmul"):
            is_dense = all(constant(plane) is not None for plane in value.args[2].fields)
            return (expr, calls[::-1]) if is_dense else None
        if any(is_call(value, name) for name in VIEWS):
            calls.append((value, item))
            expr = value.args[0]
            continue
        if not any(is_call(value, name) for name in _STEPS):
            return None
        pair = operand_pair(value)
        if pair is None or shape_of(pair[0]) != shape_of(value):
            return None
        calls.append((value, 0))
        expr = pair[0]


def _own_columns(x: Expr, graph: Graph) -> Expr:
    traced = _trace(x, graph)
    if traced is None or not any(any(is_call(c, n) for n in VIEWS) for c, _ in traced[1]):
        return x
    source, calls = traced
    shape = shape_of(source)
    columns = shape[-1]
    index = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    steps: list[tuple[Expr, bool, Index]] = []
    for call, item in calls:
        if any(is_call(call, name) for name in VIEWS):
            index = apply_view(call, index, item)
            continue
        array = next(a for a in map(constant, call.args) if a is not None)
        by_column = _per_column(np.broadcast_to(array, index.shape), index % columns, columns)
        if by_column is None:
            return x
        steps.append((call, constant(call.args[0]) is not None, by_column))
    taken = _head_columns(index, shape)
    if taken is None or (not _step_after_view(calls) and _takes_all(taken, columns)):
        return x
    return _emit(source, steps, taken, shape, graph)


def _takes_all(taken: Index, columns: int) -> bool:
    """Whether every column is taken, in order."""
    return taken.size == columns and bool((taken.reshape(-1) == np.arange(columns)).all())


def _step_after_view(calls: list[tuple[Expr, int]]) -> bool:
    """Whether a float step follows a view."""
    views = [any(is_call(call, name) for name in VIEWS) for call, _ in calls]
    return not all(views[views.index(True) :])


def _per_column(values: Index, column: Index, columns: int) -> Index | None:
    """The constant of each column, where it does not depend on anything else."""
    out = np.zeros(columns, dtype=values.dtype)
    out[column.reshape(-1)] = values.reshape(-1)
    return out if (out[column] == values).all() else None


def _head_columns(index: Index, shape: tuple[int, ...]) -> Index | None:
    """Columns (heads, width) such that index[b, h, t, j] is element (b, t, columns[h, j])."""
    if index.ndim != 4 or len(shape) != 3:
        return None
    batch, tokens, columns = shape
    if (index.shape[0], index.shape[2]) != (batch, tokens):
        return None
    taken = index[0, :, 0, :] % columns
    row = (np.arange(batch)[:, None] * tokens + np.arange(tokens)) * columns
    expected = row[:, None, :, None] + taken[None, :, None, :]
    return taken if (expected == index).all() else None


def _emit(
    source: Expr,
    steps: list[tuple[Expr, bool, Index]],
    taken: Index,
    shape: tuple[int, ...],
    graph: Graph,
) -> Expr:
    heads, width = taken.shape
    flat = taken.reshape(-1)
    a, a_scales, b, b_scales = (list(part.fields) for part in graph.producer(source).args)
    b = [literal(payload(plane)[:, flat]) for plane in b]
    b_scales = [literal(_columns_of(payload(scale), flat)) for scale in b_scales]
    y = graph.emit(ops.matmul(a, a_scales, b, b_scales), source.name)
    for call, constant_first, by_column in steps:
        operand = literal(by_column[flat])
        args = [operand, y] if constant_first else [y, operand]
        y = graph.emit(_STEPS[call.op.name](*args))
    y = graph.emit(relax.op.reshape(y, (shape[0], shape[1], heads, width)))
    return graph.emit(relax.op.permute_dims(y, [0, 2, 1, 3]))


def _columns_of(scale: Index, flat: Index) -> Index:
    return scale if scale.size == 1 else np.take(scale, flat, axis=-1)
