"""Loops around a stage: vectors along one axis, ragged ends by overlap.

An axis of ``n`` elements is walked in vectors that start at ``min(i * lanes, n - lanes)``: the last
one repeats elements of the one before, which costs nothing and needs neither a mask nor a scalar
remainder. Sums, where an element may count once only, mask the repeated lanes. Tensors that live
within the kernel are not written twice, because TVM may let one take the memory of the tensor it is
computed from: their ragged end is written in smaller vectors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float.expressions import Scope, flat, index
from gsb_tvm.schedules.float.merging import merged, one_axis
from gsb_tvm.schedules.float.parts import nest, spread
from gsb_tvm.schedules.float.stages import Axis, Stage, loads, stride, uses
from gsb_tvm.schedules.float.tiles import Vectors, fitting_lanes
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import (
    Buffer,
    Expr,
    add,
    bind,
    load,
    local,
    maximum,
    minimum,
    reduce,
    splat,
    store,
)

COMBINE: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": add,
    "mul": lambda a, b: a * b,
    "max": maximum,
    "min": minimum,
}


@dataclass(frozen=True)
class Target:
    """Where a stage is written: an argument, or flat scratch for a row of ``shape``."""

    buffer: Buffer
    shape: tuple[int, ...] | None = None

    @property
    def is_output(self) -> bool:
        """Whether it is an argument."""
        return self.shape is None

    def put(self, value: Expr, row: Sequence[Expr], rest: Sequence[Expr]) -> None:
        """Write ``value`` at ``row``, its rows' coordinates, and ``rest``, the others."""
        at = [*row, *rest] if self.shape is None else [flat(self.shape, rest)]
        T.buffer_store(self.buffer, value, at or [index(0) for _ in self.buffer.shape])


def vector_start(number: Expr, count: int, lanes: int) -> Expr:
    """Start of vector ``number`` of those that cover ``count`` elements."""
    start = number * index(lanes)
    return start if count % lanes == 0 else bind(T.min(start, index(count - lanes)))


def extents(axes: Sequence[Axis]) -> list[int]:
    """How far each axis runs."""
    return [axis.extent for axis in axes]


class Walk(StrEnum):
    """How vectors run through a stage: element by element, along what is reduced, or across it."""

    STEPS = "steps"
    ALONG = "along"
    ACROSS = "across"


def walk_of(stage: Stage, scope: Scope, rows: int) -> tuple[Walk, int]:
    """How :func:`compute` walks ``stage`` below its first axes, and over how many elements."""
    if not any(axis.extent > 1 for axis in stage.reduce):
        *_, count = [1, *[prod(extents(group)) for group in _groups(stage, scope, rows)]]
        return Walk.STEPS, count
    if _along_columns(stage, scope, rows):
        kept = stage.axes[rows:]
        return Walk.ACROSS, kept[_last_long(kept)].extent
    return Walk.ALONG, stage.reduce[_last_long(stage.reduce)].extent


def _groups(stage: Stage, scope: Scope, rows: int) -> list[list[Axis]]:
    """The axes of a plain stage below its first ones, those together that are walked as one."""
    single = [index(0) for _ in stage.reduce]
    return merged(scope.value(stage, stage.vars, single), stage.axes[rows:])


def _last_long(axes: Sequence[Axis]) -> int:
    """Position of the last axis that has more than one element; 0 where none has."""
    return max((i for i, axis in enumerate(axes) if axis.extent > 1), default=0)


def compute(
    stage: Stage,
    scope: Scope,
    out: Target,
    row: Sequence[Expr],
    vectors: Vectors,
    share: Share | None = None,
) -> None:
    """Write ``stage`` at the coordinates ``row`` of its first axes into ``out``.

    All of it, or what falls to one part.
    """
    if any(axis.extent > 1 for axis in stage.reduce):
        _reduce(stage, scope, out, row, vectors, share)
        return
    single = [index(0) for _ in stage.reduce]
    groups = _groups(stage, scope, len(row))
    *outer, count = [prod(extents(group)) for group in groups] or [1]

    def write(before: Sequence[Expr], start: Expr, width: int) -> None:
        with T.vectorized(index(0), index(width)) as lane:
            rest = []
            for group, position in zip(groups, [*before, start + lane], strict=False):
                rest += one_axis(group, position)
            out.put(scope.value(stage, [*row, *rest], single), row, rest)

    lanes = fitting_lanes(count, vectors.lanes)
    whole = count if out.is_output else count // lanes * lanes
    with spread([*outer, -(-whole // lanes)], share) as (*before, number):
        write(before, vector_start(number, whole, lanes), lanes)
    if whole == count:
        return
    with spread(outer, share) as before:
        while whole < count:
            width = fitting_lanes(count - whole, lanes)
            write(before, index(whole), width)
            whole += width


def _reduce(
    stage: Stage,
    scope: Scope,
    out: Target,
    row: Sequence[Expr],
    vectors: Vectors,
    share: Share | None,
) -> None:
    if _along_columns(stage, scope, len(row)):
        _reduce_columns(stage, scope, out, row, vectors, share)
        return
    with spread(extents(stage.axes[len(row) :]), share) as rest:
        total = _reduce_row(stage, scope, [*row, *rest], vectors)
        out.put(total, row, rest)


def _along_columns(stage: Stage, scope: Scope, rows: int) -> bool:
    """Whether vectors run along the last kept axis, not along the last reduced one.

    They do unless what depends on both axes is contiguous along the reduced one only.
    """
    kept = stage.axes[rows:]
    if not kept or kept[_last_long(kept)].extent == 1:
        return False
    along, reduced = kept[_last_long(kept)].var, stage.reduce[_last_long(stage.reduce)].var
    found = loads(scope.value(stage, stage.vars, [axis.var for axis in stage.reduce]))
    both = [each for each in found if uses(each, along) and uses(each, reduced)]
    contiguous = any(stride(each, along) == 1 for each in both)
    return contiguous or not any(stride(each, reduced) == 1 for each in both)


def needs_axis(stage: Stage, scope: Scope, rows: int) -> bool:
    """Whether the axis after the first ``rows`` is the last one vectors of ``stage`` can run along.

    A plain stage without any long axis is a scalar per row and needs none.
    """
    kept = stage.axes[rows:]
    if not kept or _last_long(kept) != 0 or kept[0].extent == 1:
        return False
    if stage.reduce:
        return _along_columns(stage, scope, rows)
    return any(stride(found, kept[0].var) == 1 for found in loads(scope.value(stage, stage.vars)))


def _accumulate(acc: Buffer, chain: int, lanes: int, combine: str, term: Any) -> None:
    """``acc[chain, lane] = combine(acc[chain, lane], term(lane))``."""
    with T.vectorized(index(0), index(lanes)) as lane:
        total = COMBINE[combine](acc[chain, lane], term(lane))
        T.buffer_store(acc, total, [chain, lane])


def _start(acc: Buffer, chains: int, lanes: int, identity: float) -> None:
    for chain in range(chains):
        store(acc, splat(identity, lanes), chain, 0, lanes=lanes)


def _reduce_row(stage: Stage, scope: Scope, at: Sequence[Expr], vectors: Vectors) -> Expr:
    """One element of a reduction whose vectors run along its last reduced axis."""
    last = _last_long(stage.reduce)
    before, after = stage.reduce[:last], stage.reduce[last + 1 :]
    count = stage.reduce[last].extent
    lanes = fitting_lanes(count, vectors.lanes)
    chains = max(1, min(vectors.chains, count // lanes))
    acc = local((chains, lanes), stage.buffer.dtype)
    _start(acc, chains, lanes, stage.identity)
    with nest(extents(before)) as outer:

        def term(position: Expr) -> Expr:
            inner = [index(0) for _ in after]
            return scope.value(stage, at, [*outer, position, *inner])

        step = chains * lanes
        with T.serial(index(0), index(count // step)) as i:
            for chain in range(chains):
                start = i * index(step) + index(chain * lanes)
                _accumulate(acc, chain, lanes, stage.combine, lambda i, s=start: term(s + i))
        for start in range(count // step * step, count - lanes + 1, lanes):
            _accumulate(acc, 0, lanes, stage.combine, lambda i, s=start: term(index(s) + i))
        rest = count % lanes
        if rest:
            identity = tirx.const(stage.identity, stage.buffer.dtype)
            _accumulate(
                acc,
                0,
                lanes,
                stage.combine,
                lambda i: T.Select(
                    i >= index(lanes - rest), term(index(count - lanes) + i), identity
                ),
            )
    combine = COMBINE[stage.combine]
    total = load(acc, 0, 0, lanes=lanes)
    for chain in range(1, chains):
        total = combine(total, bind(load(acc, chain, 0, lanes=lanes)))
    if lanes == 1:
        return acc[0, 0]
    return bind(reduce(bind(total), lanes, combine))


def _reduce_columns(
    stage: Stage,
    scope: Scope,
    out: Target,
    row: Sequence[Expr],
    vectors: Vectors,
    share: Share | None,
) -> None:
    """A reduction whose vectors run along its last kept axis: one pass per block of columns."""
    kept = stage.axes[len(row) :]
    at = _last_long(kept)
    count = kept[at].extent
    lanes = fitting_lanes(count, vectors.lanes)
    chains = min(vectors.columns, -(-count // lanes))
    width = min(chains * lanes, count)
    acc = local((chains, lanes), stage.buffer.dtype)
    after = [index(0) for _ in kept[at + 1 :]]
    with spread([*extents(kept[:at]), -(-count // width)], share) as (*before, block):
        base = vector_start(block, count, width)
        starts = [bind(T.min(base + index(c * lanes), index(count - lanes))) for c in range(chains)]
        _start(acc, chains, lanes, stage.identity)
        with nest(extents(stage.reduce)) as reduced:

            def term(column: Expr) -> Expr:
                return scope.value(stage, [*row, *before, column, *after], reduced)

            for chain, start in enumerate(starts):
                _accumulate(acc, chain, lanes, stage.combine, lambda i, s=start: term(s + i))
        for chain, start in enumerate(starts):
            with T.vectorized(index(0), index(lanes)) as lane:
                out.put(acc[chain, lane], row, [*before, start + lane, *after])
