"""Depthwise convolutions and pooling: each image on its own, position by position.

The reduction runs over the window alone: ``C[c, y, x] = sum_vu A[c', s y + v, s x + u] * B[c, v,
u]``, or a maximum, or without B.

1. The image of c is copied into padded planes split by stride (:mod:`.planes`), in cache.
2. A tile of rows, one vector wide, stays in registers while the window is walked column by column:
   a vector of the image is read once for all its rows.
3. What follows element by element is applied to the tile. Images narrower than a vector leave it
   through memory.

Images are shared among threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float import rows
from gsb_tvm.schedules.float.expressions import Scope, index
from gsb_tvm.schedules.float.loops import COMBINE, Target, compute, extents, vector_start
from gsb_tvm.schedules.float.parts import nest, spread
from gsb_tvm.schedules.float.planes import Planes
from gsb_tvm.schedules.float.stages import Stage, read, rewritten
from gsb_tvm.schedules.float.tiles import rows_at_once
from gsb_tvm.schedules.float.windows import Window, find
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, local, splat, store, workspace
from gsb_tvm.targets.profile import Profile

_UNROLLED = 128  # vector operations that stand in a row


def apply(func: Any, profile: Profile) -> Any | None:
    """Scheduled form of ``func``; None where its first reduction is not over a window alone."""
    stages = read(func)
    first = next((at for at, stage in enumerate(stages or []) if stage.reduce), None)
    if stages is None or first is None:
        return None
    stage, before, after = stages[first], stages[:first], stages[first + 1 :]
    window = find(stage, before)
    if window is None or stage.buffer.dtype != "float32":
        return None
    taps = [slide.tap for slide in (window.y, window.x)]
    if any(axis not in taps and axis.extent > 1 for axis in stage.reduce):
        return None
    written = [each.buffer for each in stages[:-1]]
    if any(buffer.same_as(param) for buffer in written for param in func.params):
        return None
    return rewritten(func, lambda new: _emit(before, stage, window, after, new, profile.lanes))


def _emit(
    before: Sequence[Stage],
    stage: Stage,
    window: Window,
    after: Sequence[Stage],
    buffers: dict[Any, Buffer],
    lanes: int,
) -> None:
    scope = Scope()
    for old, new in buffers.items():
        scope.bind_buffer(old, new)
    for each in before:
        scope.inline(each)
    copied = replace(stage, reduce=(), combine="", value=stage.buffer[tuple(stage.vars)])
    if rows.is_elementwise(after, stage.buffer):
        for each in after[:-1]:
            scope.inline(each)
        last = after[-1] if after else copied
        _images(stage, window, scope, last, buffers[last.buffer], lanes)
        return
    whole = workspace(stage.shape, "float32")
    _images(stage, window, scope, copied, whole, lanes)
    rows.emit([*before, *after], {**buffers, stage.buffer: whole}, lanes)


def _images(
    stage: Stage, window: Window, scope: Scope, last: Stage, out: Buffer, lanes: int
) -> None:
    """Write ``last``, which follows ``stage``, image by image."""
    planes = Planes(window, lanes)
    height, width = stage.shape[-2:]
    tile = _Tile(rows_at_once(height), height, width, lanes)
    with phase() as share:
        image = workspace((planes.size + lanes,), "float32")
        sums = None if width >= lanes else workspace((height * lanes,), "float32")
        planes.clear(image, [])
        with spread(extents(stage.axes[:-2]), share) as row:
            env = {axis.var: at for axis, at in zip(stage.axes, row, strict=False)}
            env |= {axis.var: index(0) for axis in stage.reduce}
            planes.fill(image, [], scope, [scope.evaluate(at, env) for at in window.lead])
            result = Target(out)
            _positions(_Sliding(stage, planes, scope, image, row), tile, last, result, sums)
            if sums is not None:
                scope.sources[stage.buffer] = lambda at: sums[at[-2] * index(lanes) + at[-1]]
                compute(last, scope, result, row, lanes)


@dataclass(frozen=True)
class _Tile:
    """``rows`` of a result of ``height`` rows, and ``lanes`` of its ``width`` columns."""

    rows: int
    height: int
    width: int
    lanes: int


@dataclass(frozen=True)
class _Sliding:
    """The reduction ``stage`` on one image, that of the coordinates ``row`` of its first axes."""

    stage: Stage
    planes: Planes
    scope: Scope
    image: Buffer
    row: Sequence[Expr]


def _positions(
    sliding: _Sliding, tile: _Tile, last: Stage, out: Target, sums: Buffer | None
) -> None:
    """Combine the window at every position, tile by tile."""
    stage, scope, row, lanes = sliding.stage, sliding.scope, sliding.row, tile.lanes
    acc = local((tile.rows, lanes), "float32")
    with nest([-(-tile.height // tile.rows), -(-tile.width // lanes)]) as (y_tile, x_tile):
        y = vector_start(y_tile, tile.height, tile.rows)
        x = index(0) if sums is not None else vector_start(x_tile, tile.width, lanes)
        for r in range(tile.rows):
            store(acc, splat(stage.identity, lanes), r, 0, lanes=lanes)
        first = bind(y * index(sliding.planes.pitch) + x)
        _walk(sliding, tile.rows, acc, first, lanes)
        for r in range(tile.rows):
            if sums is not None:
                start = (y + index(r)) * index(lanes)
                store(sums, load(acc, r, 0, lanes=lanes), start, lanes=lanes)
                continue
            with T.vectorized(index(0), index(lanes)) as lane:
                scope.bind_value(stage.buffer, acc[r, lane])
                at = [y + index(r), x + lane]
                out.put(scope.value(last, [*row, *at]), row, at)


def _walk(sliding: _Sliding, rows: int, acc: Buffer, first: Expr, lanes: int) -> None:
    """Combine all taps into ``acc``: column by column of the window, in a loop where it is large.

    An element of the image is read once for all taps of a column that meet it.
    """
    y, x = sliding.planes.window.y, sliding.planes.window.x
    meetings = sorted(
        (y.stride * r + y.dilation * v, r, v) for r in range(rows) for v in range(y.taps)
    )

    def column(u: Expr) -> None:
        for _, r, v in meetings:
            _combine(sliding, acc, (r, v, u), first, lanes)

    if len(meetings) * x.taps <= _UNROLLED:
        for u in range(x.taps):
            column(index(u))
        return
    with nest([x.taps]) as (u,):
        column(u)


def _combine(
    sliding: _Sliding, acc: Buffer, at: tuple[int, int, Expr], first: Expr, lanes: int
) -> None:
    """Combine tap (v, u) at ``lanes`` positions, r rows below ``first``."""
    (r, v, u), planes = at, sliding.planes
    window, stage = planes.window, sliding.stage
    taps = {window.y.tap: index(v), window.x.tap: u}
    reduced = [taps.get(axis, index(0)) for axis in stage.reduce]
    start = first + index(r * planes.pitch) + planes.tap(index(v), u)
    with T.vectorized(index(0), index(lanes)) as lane:
        scope = Scope(dict(sliding.scope.sources))
        scope.bind_value(window.source, sliding.image[start + lane])
        term = scope.value(stage, [*sliding.row, index(0), index(0)], reduced)
        T.buffer_store(acc, COMBINE[stage.combine](acc[r, lane], term), [r, lane])
