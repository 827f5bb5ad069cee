"""The loops of a matrix product: panels of columns, register tiles of sums."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import TensorLoad
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float.expressions import Scope, index
from gsb_tvm.schedules.float.loops import extents, vector_start
from gsb_tvm.schedules.float.parts import coordinates, nest, span, spread
from gsb_tvm.schedules.float.roles import Product
from gsb_tvm.schedules.float.stages import Axis, Stage
from gsb_tvm.schedules.float.tiles import fitting_lanes, product_tile
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, local, splat, store, workspace
from gsb_tvm.targets.profile import Profile

_CHUNK = 16  # a patch of 3 x 16 x 16: 16 products, then 48 sums, in place of 768 in a row


class Writer:
    """Writes one product and what follows it element by element."""

    def __init__(
        self,
        product: Product,
        scope: Scope,
        buffers: dict[Any, Buffer],
        profile: Profile,
        last: Stage | None,
        *,
        long: bool = False,
    ) -> None:
        self._p = product
        self._scope = scope
        self._last = last
        self._long = long
        self._out = buffers[(last or product.stage).buffer]
        self._rows = prod(axis.extent for axis in product.m)
        self._columns = prod(axis.extent for axis in product.n)
        self._depth = prod(axis.extent for axis in product.k)
        self._batches = prod(axis.extent for axis in product.batch)
        self._lanes = fitting_lanes(self._columns, profile.lanes)
        registers = 32 if profile.has_avx512 or profile.has_neon else 16
        self._vectors = -(-self._columns // self._lanes)
        self._tile = product_tile(self._rows, self._vectors, registers)

    def emit(self) -> None:
        """Write the phases: factors as matrices where they are none, then the product."""
        p, (_, width) = self._p, self._tile
        long = [axis for axis in p.n if axis.extent > 1]
        self._a_matrix = None if _in_place(p.a) else self._matrix(self._rows, self._depth)
        self._b_matrix = None if len(long) == 1 else self._matrix(self._depth, self._columns)
        if self._a_matrix is not None or self._b_matrix is not None:
            with phase() as share:
                if self._a_matrix is not None:
                    self._fill(self._a_matrix, p.m, p.k, p.a, share)
                if self._b_matrix is not None:
                    self._fill(self._b_matrix, p.k, p.n, p.b, share)
        whole, rest = divmod(self._vectors, width)
        with phase() as share:
            self._scratch()
            if whole:
                self._column_tiles(index(0), whole, width, share)
            if rest:
                self._column_tiles(index(whole * width), 1, rest, share)

    def _matrix(self, rows: int, columns: int) -> Buffer:
        return workspace((self._batches, rows, columns), "float32")

    def _scratch(self) -> None:
        """A part's own panel of columns, and sums of a tile."""
        height, width = self._tile
        self._panel = (
            workspace((self._depth, width, self._lanes), "float32") if self._rows > height else None
        )
        self._sums = workspace((height, width, self._lanes), "float32") if self._long else None

    def _fill(
        self,
        matrix: Buffer,
        rows: Sequence[Axis],
        columns: Sequence[Axis],
        factor: Expr,
        share: Share,
    ) -> None:
        """Write ``factor`` out as a matrix, in vectors along the last of ``columns``."""
        *inner, last = columns
        lanes = fitting_lanes(last.extent, self._lanes)
        outer = [*self._p.batch, *rows, *inner]
        count = -(-last.extent // lanes)
        with spread([*extents(outer), count], share) as (*at, number):
            start = vector_start(number, last.extent, lanes)
            with T.vectorized(index(0), index(lanes)) as lane:
                env = _env(outer, at) | {last.var: start + lane}
                place = [
                    _flat(axes, [env[axis.var] for axis in axes])
                    for axes in (self._p.batch, rows, columns)
                ]
                T.buffer_store(matrix, self._scope.evaluate(factor, env), place)

    def _starts(self, first: Expr, width: int) -> list[Expr]:
        """First column of each vector of a tile."""
        starts = [(first + index(v)) * index(self._lanes) for v in range(width)]
        if self._columns % self._lanes == 0:
            return starts
        return [bind(T.min(start, index(self._columns - self._lanes))) for start in starts]

    def _column_tiles(self, first: Expr, tiles: int, width: int, share: Share) -> None:
        """A part's units of ``tiles`` tiles of ``width`` vectors: one is a register tile.

        Units run along the rows of a tile of columns, then along tiles, then along the batch; a
        panel that two parts share is copied by each.
        """
        height = self._tile[0]
        rows = -(-self._rows // height)
        begin, end = span(share, self._batches * tiles * rows)
        ceiling = tirx.floordiv(end + index(rows - 1), index(rows))
        with T.serial(tirx.floordiv(begin, index(rows)), ceiling) as pair:
            batch, tile = coordinates(pair, [self._batches, tiles])
            self._batch = _split(self._p.batch, batch)
            self._flat_batch = batch
            starts = self._starts(first + tile * index(width), width)
            self._copy_panel(starts)
            from_row = T.max(begin - pair * index(rows), index(0))
            to_row = T.min(end - pair * index(rows), index(rows))
            with T.serial(bind(from_row), bind(to_row)) as row:
                self._register_tile(vector_start(row, self._rows, height), starts)

    def _copy_panel(self, starts: Sequence[Expr]) -> None:
        if self._panel is None:
            return
        with self._deep() as (k, env):
            for v, start in enumerate(starts):
                with T.vectorized(index(0), index(self._lanes)) as lane:
                    T.buffer_store(self._panel, self._b(k, env, start + lane), [k, v, lane])

    @contextmanager
    def _deep(self) -> Iterator[tuple[Expr, dict[Any, Expr]]]:
        """Loops over k: its flat index and its coordinates."""
        with nest(extents(self._p.k)) as at:
            yield bind(_flat(self._p.k, at)), _env(self._p.k, at)

    def _b(self, k: Expr, env: dict[Any, Expr], column: Expr) -> Expr:
        if self._b_matrix is not None:
            return self._b_matrix[self._flat_batch, k, column]
        env = {**self._batch, **env, **_split(self._p.n, column)}
        return self._scope.evaluate(self._p.b, env)

    def _a(self, k: Expr, env: dict[Any, Expr], row: Expr) -> Expr:
        if self._a_matrix is not None:
            return self._a_matrix[self._flat_batch, row, k]
        env = {**self._batch, **env, **_split(self._p.m, row)}
        return self._scope.evaluate(self._p.a, env)

    def _register_tile(self, row: Expr, starts: Sequence[Expr]) -> None:
        height, lanes = self._tile[0], self._lanes
        # One buffer per row: small ones stay on the stack, where LLVM makes them registers.
        acc = [local((len(starts), lanes), "float32") for _ in range(height)]
        tile = [(i, v) for i in range(height) for v in range(len(starts))]
        columns = local((len(starts), lanes), "float32")
        outer, inner = _chunks(self._p.k)
        totals = acc
        if outer:
            totals = [local((len(starts), lanes), "float32") for _ in range(height)]
            self._clear(totals, tile)
        with nest(extents(outer)) as chunk:
            self._clear(acc, tile)
            with nest(extents(inner)) as at:
                at = [*chunk, *at]
                k, env = bind(_flat(self._p.k, at)), _env(self._p.k, at)
                self._load_columns(columns, k, env, starts)
                for i in range(height):
                    a = bind(splat(self._a(k, env, row + index(i)), lanes))
                    for v in range(len(starts)):
                        term = a * load(columns, v, 0, lanes=lanes)
                        store(acc[i], load(acc[i], v, 0, lanes=lanes) + term, v, 0, lanes=lanes)
            for i, v in tile if outer else []:
                part = load(acc[i], v, 0, lanes=lanes)
                store(totals[i], load(totals[i], v, 0, lanes=lanes) + part, v, 0, lanes=lanes)
        if self._sums is None:
            for i, v in tile:
                self._finish(_lane_of(totals[i], v), row + index(i), starts[v])
            return
        # Sums leave the registers, so that long code stands once and not once per row.
        sums = self._sums
        for i, v in tile:
            store(sums, load(totals[i], v, 0, lanes=lanes), i, v, 0, lanes=lanes)
        with T.serial(index(0), index(height)) as r:
            for v, start in enumerate(starts):
                self._finish(_lane_of(sums, r, v), row + r, start)

    def _clear(self, sums: Sequence[Buffer], tile: Sequence[tuple[int, int]]) -> None:
        for i, v in tile:
            store(sums[i], splat(0.0, self._lanes), v, 0, lanes=self._lanes)

    def _load_columns(
        self, columns: Buffer, k: Expr, env: dict[Any, Expr], starts: Sequence[Expr]
    ) -> None:
        for v, start in enumerate(starts):
            with T.vectorized(index(0), index(self._lanes)) as lane:
                if self._panel is None:
                    value = self._b(k, env, start + lane)
                else:
                    value = self._panel[k, v, lane]
                T.buffer_store(columns, value, [v, lane])

    def _finish(self, total: Callable[[Expr], Expr], row: Expr, start: Expr) -> None:
        """Apply what follows the product to one vector of sums, and store it."""
        p = self._p
        with T.vectorized(index(0), index(self._lanes)) as lane:
            env = {**self._batch, **_split(p.m, row), **_split(p.n, start + lane)}
            at = [env.get(axis.var, index(0)) for axis in p.stage.axes]
            if self._last is None:
                T.buffer_store(self._out, total(lane), at)
            else:
                self._scope.bind_value(p.stage.buffer, total(lane))
                T.buffer_store(self._out, self._scope.value(self._last, at), at)


def _lane_of(buffer: Buffer, *at: Any) -> Callable[[Expr], Expr]:
    """What is in a lane of the vector of ``buffer`` at ``at``."""
    return lambda lane: buffer[(*at, lane)]


def _chunks(axes: Sequence[Axis]) -> tuple[Sequence[Axis], Sequence[Axis]]:
    """Split k into chunks that are summed one by one: rounding grows with what is added in a row.

    Chunks are the last axes, of at least ``_CHUNK`` elements; ``outer`` is empty where k is one.
    """
    at = len(axes)
    while at > 0 and prod(axis.extent for axis in axes[at:]) < _CHUNK:
        at -= 1
    if prod(axis.extent for axis in axes[:at]) == 1:
        at = 0
    return axes[:at], axes[at:]


def _in_place(factor: Expr) -> bool:
    return isinstance(factor, TensorLoad)


def _env(axes: Sequence[Axis], at: Sequence[Expr]) -> dict[Any, Expr]:
    return {axis.var: i for axis, i in zip(axes, at, strict=True)}


def _flat(axes: Sequence[Axis], at: Sequence[Expr]) -> Expr:
    """Row-major position of coordinates ``at``."""
    total = index(0)
    for axis, i in zip(axes, at, strict=True):
        total = total * index(axis.extent) + i
    return total


def _split(axes: Sequence[Axis], position: Expr) -> dict[Any, Expr]:
    """Coordinates of a row-major position: inverse of :func:`_flat`."""
    return _env(axes, coordinates(position, extents(axes)))
