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
from gsb_tvm.schedules.float.space import Change, Region, nearest
from gsb_tvm.schedules.float.stages import Stage, read, rewritten
from gsb_tvm.schedules.float.tiles import COLUMN_VECTORS, Vectors, rows_at_once
from gsb_tvm.schedules.float.windows import Window, find
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, local, splat, store, workspace
from gsb_tvm.targets.profile import Profile

_UNROLLED = 128  # vector operations that stand in a row, by rule
_MOST_UNROLLED = 512  # and where others are tried
_ROWS = (4, 16, 2, 12, 6, 1)  # of a tile, at most, that are tried
_FEWEST_LANES = 4
_LOCAL_ELEMENTS = 256  # of a tile: 1 kB, what local() keeps on the stack


@dataclass(frozen=True)
class Parameters:
    """What may be chosen of a sliding window.

    Attributes
    ----------
    lanes
        Positions of a vector.
    rows
        Rows of positions of a tile, a vector each.
    unroll
        Columns of the window that stand in a row: one or all; None where it has one.
    """

    lanes: int
    rows: int
    unroll: int | None = None


def match(func: Any) -> "Windows | None":
    """Plan of ``func``; None where its first reduction is not over a window alone."""
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
    return Windows(func, before, stage, window, after)


@dataclass(frozen=True)
class Windows:
    """A reduction over a window, and the stages around it.

    Where these are more than steps at the window's own coordinates, their loops are by rule.
    """

    func: Any
    before: list[Stage]
    stage: Stage
    window: Window
    after: list[Stage]
    parameters = Parameters

    def rule(self, profile: Profile) -> Parameters:
        """As many rows as registers hold; a small window in a row."""
        rows = rows_at_once(self.stage.shape[-2])
        unroll = self._columns if self._steps(rows) <= _UNROLLED else 1
        return Parameters(profile.lanes, rows, unroll if self._columns > 1 else None)

    def space(self, profile: Profile) -> list[Parameters]:
        """Tiles of other sizes, and the window in a loop or in a row."""
        widths = [profile.lanes >> halvings for halvings in range(3)]
        regions = []
        for narrower, lanes in enumerate(width for width in widths if width >= _FEWEST_LANES):
            for place, height in enumerate(self._heights(lanes)):
                unrolls = self._unrolls(profile, height)
                start = Parameters(lanes, height, unrolls[0]["unroll"])
                regions.append(Region(narrower + place, start, [unrolls]))
        return nearest(regions)

    def _heights(self, lanes: int) -> list[int]:
        """Rows of a tile that registers may hold, the rule's first."""
        most = [COLUMN_VECTORS, *[rows for rows in _ROWS if rows * lanes <= _LOCAL_ELEMENTS]]
        return list(dict.fromkeys(rows_at_once(self.stage.shape[-2], each) for each in most))

    def _unrolls(self, profile: Profile, height: int) -> list[Change]:
        """The rule's, and the other where it does not fill the code with copies."""
        if self._columns == 1:
            return [{"unroll": None}]
        usual = self.rule(profile).unroll
        fitting = [self._columns] if self._steps(height) <= _MOST_UNROLLED else []
        found = [1, *fitting] if usual == 1 else [*fitting, 1]
        return [{"unroll": count} for count in found]

    def write(self, profile: Profile, parameters: Parameters) -> Any:
        """The scheduled PrimFunc."""
        return rewritten(self.func, lambda new: _emit(self, parameters, new, profile.lanes))

    @property
    def _columns(self) -> int:
        return self.window.x.taps

    def _steps(self, rows: int) -> int:
        """Vector operations of a tile."""
        return rows * self.window.y.taps * self._columns


def _emit(plan: Windows, parameters: Parameters, buffers: dict[Any, Buffer], lanes: int) -> None:
    stage, after = plan.stage, plan.after
    scope = Scope()
    for old, new in buffers.items():
        scope.bind_buffer(old, new)
    for each in plan.before:
        scope.inline(each)
    copied = replace(stage, reduce=(), combine="", value=stage.buffer[tuple(stage.vars)])
    if rows.is_elementwise(after, stage.buffer):
        for each in after[:-1]:
            scope.inline(each)
        last = after[-1] if after else copied
        _images(plan, parameters, scope, last, buffers[last.buffer])
        return
    whole = workspace(stage.shape, "float32")
    _images(plan, parameters, scope, copied, whole)
    rows.emit([*plan.before, *after], {**buffers, stage.buffer: whole}, Vectors(lanes))


def _images(plan: Windows, parameters: Parameters, scope: Scope, last: Stage, out: Buffer) -> None:
    """Write ``last``, which follows the window's stage, image by image."""
    stage, lanes = plan.stage, parameters.lanes
    planes = Planes(plan.window, lanes)
    height, width = stage.shape[-2:]
    tile = _Tile(parameters.rows, height, width, lanes, parameters.unroll or 1)
    with phase() as share:
        image = workspace((planes.room,), "float32")
        sums = None if width >= lanes else workspace((height * lanes,), "float32")
        planes.clear(image, [])
        with spread(extents(stage.axes[:-2]), share) as row:
            env = {axis.var: at for axis, at in zip(stage.axes, row, strict=False)}
            env |= {axis.var: index(0) for axis in stage.reduce}
            planes.fill(image, [], scope, [scope.evaluate(at, env) for at in plan.window.lead])
            result = Target(out)
            _positions(_Sliding(stage, planes, scope, image, row), tile, last, result, sums)
            if sums is not None:
                scope.sources[stage.buffer] = lambda at: sums[at[-2] * index(lanes) + at[-1]]
                compute(last, scope, result, row, Vectors(lanes))


@dataclass(frozen=True)
class _Tile:
    """``rows`` of a result of ``height`` rows, and ``lanes`` of its ``width`` columns.

    ``unroll`` columns of the window stand in a row.
    """

    rows: int
    height: int
    width: int
    lanes: int
    unroll: int


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
        _walk(sliding, tile, acc, first)
        for r in range(tile.rows):
            if sums is not None:
                start = (y + index(r)) * index(lanes)
                store(sums, load(acc, r, 0, lanes=lanes), start, lanes=lanes)
                continue
            with T.vectorized(index(0), index(lanes)) as lane:
                scope.bind_value(stage.buffer, acc[r, lane])
                at = [y + index(r), x + lane]
                out.put(scope.value(last, [*row, *at]), row, at)


def _walk(sliding: _Sliding, tile: _Tile, acc: Buffer, first: Expr) -> None:
    """Combine all taps into ``acc``, column by column of the window.

    An element of the image is read once for all taps of a column that meet it.
    """
    y, x = sliding.planes.window.y, sliding.planes.window.x
    meetings = sorted(
        (y.stride * r + y.dilation * v, r, v) for r in range(tile.rows) for v in range(y.taps)
    )

    def column(u: Expr) -> None:
        for _, r, v in meetings:
            _combine(sliding, acc, (r, v, u), first, tile.lanes)

    if tile.unroll == x.taps:
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
