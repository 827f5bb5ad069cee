"""Loops over an index space, whole or one part of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import prod

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float.expressions import index
from gsb_tvm.schedules.sharing import MOST_PARTS, Share
from gsb_tvm.schedules.vector import Expr, bind


@contextmanager
def nest(extents: Sequence[int]) -> Iterator[list[Expr]]:
    """Serial loops; yields their coordinates. An extent of 1 gets no loop."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(T.serial(index(0), index(extent))) if extent > 1 else index(0)
            for extent in extents
        ]


def steps(extents: Sequence[int], unroll: int, body: Callable[[list[Expr]], None]) -> None:
    """Serial loops whose innermost does ``unroll`` steps at a time; ``body`` takes coordinates."""
    last = max((at for at, extent in enumerate(extents) if extent > 1), default=0)
    rest = [index(0) for _ in extents[last + 1 :]]
    whole = extents[last] // unroll
    with nest([*extents[:last], whole]) as (*before, number):
        for step in range(unroll):
            body([*before, number * index(unroll) + index(step), *rest])
    if whole * unroll == extents[last]:
        return
    with nest(extents[:last]) as before:
        for step in range(whole * unroll, extents[last]):
            body([*before, index(step), *rest])


@contextmanager
def spread(extents: Sequence[int], share: Share | None) -> Iterator[list[Expr]]:
    """Loops over what falls to one part of the index space ``extents``; all of it without a share.

    A part is a run of iterations of the outer loops: of as many of them, as one, as it takes to
    give every part some. The inner ones stay loops, whose coordinates cost no division.
    """
    if share is None:
        with nest(extents) as at:
            yield at
        return
    merged = _merged(extents)
    first, end = span(share, prod(extents[:merged]))
    with T.serial(first, end) as flat, nest(extents[merged:]) as inner:
        yield [*coordinates(flat, extents[:merged]), *inner]


def span(share: Share, count: int) -> tuple[Expr, Expr]:
    """First and one past the last of this part's units of ``count``, int64 as all loops here."""
    first, end = share.span(count)
    return bind(T.Cast("int64", first)), bind(T.Cast("int64", end))


def coordinates(position: Expr, extents: Sequence[int]) -> list[Expr]:
    """Coordinates of a row-major position."""
    at = []
    step, outermost = prod(extents), True
    for extent in extents:
        step //= extent
        if extent == 1:
            at.append(index(0))
            continue
        value = position if step == 1 else tirx.floordiv(position, index(step))
        at.append(value if outermost else tirx.floormod(value, index(extent)))
        outermost = False
    return at


def _merged(extents: Sequence[int]) -> int:
    """How many of the outer loops are divided among the parts, as one."""
    for count in range(len(extents)):
        if prod(extents[:count]) >= MOST_PARTS:
            return count
    return len(extents)
