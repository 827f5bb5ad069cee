"""Fold everything between an integer and its bit into a set of integers per column."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import (
    WORD_BITS,
    Floats,
    Rows,
    pack_weight,
    pad_columns,
    pad_weight_columns,
    unpack_weight,
)
from gsb_tvm.dialect.ops import is_call, spec_of
from gsb_tvm.dialect.specs import Compare, Dense, Kind, Operand, Thresholds
from gsb_tvm.passes.elementwise import elementwise_source, evaluate
from gsb_tvm.passes.rewriting import Expr, Graph, literal, payload, rewrite_pass

Array = npt.NDArray[Any]
EMPTY = np.iinfo(np.int32).max  # becomes the largest number of the thresholds' type


def FoldThresholds() -> Pass:
    """Let ``gsb.dense`` write bits where only per-column float steps lie before the compare.

    Before  b = gsb.binarize(clip(gelu(gsb.dense(...; mul, add))) + move)
    After   b = gsb.dense(...; thresholds)     bit where dot is in a set of integers
    Requires   between dense and compare only elementwise steps with constants that are scalar or
               per column; for every column the set, or its complement, is one interval, and the
               set of zeros is one interval
    Leaves alone   layers with a residual or a norm between, columns with a more scattered set
    Exact   by construction: the graph's own float32 steps are run on every integer in [-K, K]
    Source   docs/architecture.md, Exactness, threshold folding
    """
    return rewrite_pass("FoldThresholds", lambda: lambda _var, value, g: _fold(value, g))


def _fold(value: Expr, graph: Graph) -> Expr | None:
    if not is_call(value, "gsb.binarize"):
        return None
    spec = spec_of(value)
    if spec.norm:
        return None
    x = value.args[0]
    source = elementwise_source(x, graph, stop=lambda v: is_call(v, "gsb.dense"))
    call = graph.call(source, "gsb.dense") if source is not None else None
    if source is None or call is None:
        return None
    dense = spec_of(call)
    if dense.thresholds is not None or any(s.operand is Operand.TENSOR for s in dense.steps):
        return None
    dots = np.arange(-dense.rows.features, dense.rows.features + 1)
    y = _run_steps(dense, call, dots)
    u = np.broadcast_to(evaluate(x, source, y, graph), y.shape)
    if spec.shift:
        u = (u + payload(value.args[1])).astype(np.float32)
    folded = _with_sets(dense, call, spec.rows, spec.compare, dots, u)
    return None if folded is None else graph.emit(folded, source.name)


def _run_steps(dense: Dense, call: Expr, dots: Array) -> Floats:
    """The layer's own float steps on every integer: (integers, columns)."""
    y = np.repeat(dots.astype(np.float32)[:, None], dense.columns, axis=1)
    operands = call.args[len(call.args) - len(dense.steps) :]
    for step, operand in zip(dense.steps, operands, strict=True):
        vector = payload(operand)[: dense.columns]
        y = y * vector if step.op == "mul" else y + vector
    return y


def _with_sets(
    dense: Dense, call: Expr, rows: Rows, compare: Compare, dots: Array, u: Floats
) -> Expr | None:
    bound = np.float32(compare.bound)
    holds = u > bound if compare.strict else u >= bound
    flip = holds[0] & holds[-1] & ~holds.all(0)  # the complement is the interval
    bits = intervals(holds != flip, dots)
    zeros = intervals((u == 0) | np.isnan(u), dots) if compare.kind is Kind.MASKED else None
    if bits is None or (compare.kind is Kind.MASKED and zeros is None):
        return None
    out = replace(dense, steps=(), thresholds=Thresholds(rows, compare.kind))
    args = [*_repacked(dense, out, call), *_threshold_arrays(out, bits, flip, zeros)]
    return ops.packed(out, args)


def intervals(holds: Array, dots: Array) -> tuple[Array, Array] | None:
    """(low, width) per column of the integers where ``holds`` (integers, columns), or None.

    An empty column is (2**31 - 1, 0); None where a column's set is not one interval.
    """
    edges = np.diff(holds.astype(np.int8), axis=0, prepend=0, append=0)
    if ((edges == 1).sum(0) > 1).any():
        return None
    any_set = holds.any(0)
    first, last = holds.argmax(0), len(dots) - 1 - holds[::-1].argmax(0)
    low = np.where(any_set, dots[first], EMPTY).astype(np.int32)
    width = np.where(any_set, dots[last] - dots[first], 0).astype(np.uint32)
    return low, width


def _repacked(dense: Dense, out: Dense, call: Expr) -> list[Expr]:
    """Activation and weight arguments, weight columns spread over whole words per group."""
    count = len(dense.inputs()) - len(dense.steps)
    args = list(call.args[:count])
    planes = 2 if dense.weight is Kind.MASKED else 1
    assert out.thresholds is not None
    for i in range(count - planes, count):
        packed = payload(args[i])
        groups, width = dense.rows.groups, dense.rows.width
        plane = unpack_weight(packed, groups=groups, width=width, columns=dense.columns)
        spread = pad_weight_columns(plane, out.thresholds.rows)
        args[i] = literal(pack_weight(spread, groups=groups, column_tile=dense.column_tile))
    return args


def _threshold_arrays(
    out: Dense, bits: tuple[Array, Array], flip: Array, zeros: tuple[Array, Array] | None
) -> list[Expr]:
    assert out.thresholds is not None
    rows = out.thresholds.rows

    def column(values: Array, fill: int) -> Array:
        full = np.full(out.padded_columns, fill, dtype=values.dtype)
        spread = pad_columns(values, rows, fill)
        full[: len(spread)] = spread
        return full

    flips = np.packbits(column(flip.astype(bool), 0), bitorder="little").view(np.uint32)
    assert flips.size == out.padded_columns // WORD_BITS
    sides = [bits] if zeros is None else [bits, zeros]
    arrays = [
        narrowed
        for low, width in sides
        for narrowed in _narrowed(out, column(low, EMPTY), column(width, 0))
    ]
    return [literal(array) for array in (*arrays[:2], flips, *arrays[2:])]


def _narrowed(out: Dense, low: Array, width: Array) -> tuple[Array, Array]:
    """Bounds in the type of the layer's thresholds."""
    bits = out.threshold_bits
    low = np.minimum(low, np.iinfo(f"int{bits}").max)
    return low.astype(f"int{bits}"), width.astype(f"uint{bits}")
