"""The loops of a matrix product: panels of columns, register tiles of sums."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import TensorLoad
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float.columns import (
    InPlace,
    Patches,
    Written,
    matrix_of,
    split,
    write_matrix,
)
from gsb_tvm.schedules.float.expressions import Scope, flat, index
from gsb_tvm.schedules.float.loops import extents, vector_start
from gsb_tvm.schedules.float.parts import coordinates, nest, span, steps
from gsb_tvm.schedules.float.product_space import Columns, Finish, Outer, Parameters, Reads
from gsb_tvm.schedules.float.roles import Product
from gsb_tvm.schedules.float.stages import Axis, Stage
from gsb_tvm.schedules.float.windows import Window
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, local, splat, store, workspace
from gsb_tvm.targets.profile import Profile


class Writer:
    """Writes one product and what follows it element by element."""

    def __init__(
        self,
        product: Product,
        scope: Scope,
        buffers: dict[Any, Buffer],
        profile: Profile,
        parameters: Parameters,
        last: Stage | None,
        window: Window | None,
    ) -> None:
        self._p = product
        self._scope = scope
        self._last = last
        self._parameters = parameters
        self._out = buffers[(last or product.stage).buffer]
        self._rows = prod(extents(product.m))
        self._depth = prod(extents(product.k))
        self._batches = prod(extents(product.batch))
        self._columns = _columns(product, scope, window, profile, parameters)
        self._lanes = parameters.lanes
        self._vectors = -(-self._columns.count // self._lanes)
        self._tile = parameters.rows, parameters.vectors

    def emit(self) -> None:
        """Write the phases: factors as matrices where they are none, then the product."""
        p, columns = self._p, self._columns
        self._a_matrix = None if _in_place(p.a) else matrix_of(p.batch, p.m, p.k)
        if self._a_matrix is not None or columns.is_prepared:
            with phase() as share:
                if self._a_matrix is not None:
                    axes = (p.batch, p.m, p.k)
                    write_matrix(self._a_matrix, axes, p.a, self._scope, self._lanes, share)
                columns.prepare(share)
        with phase() as share:
            self._scratch()
            if isinstance(columns, Patches):
                self._blocks(share)
            else:
                self._tiles(share)

    def _scratch(self) -> None:
        """A part's own panel of columns, and sums of a tile."""
        height, width = self._tile
        shape = (self._depth, width, self._lanes)
        has_panel = self._parameters.reads is Reads.PANEL
        self._panel = workspace(shape, "float32") if has_panel else None
        is_looped = self._parameters.finish is Finish.LOOP
        self._sums = workspace((height, width, self._lanes), "float32") if is_looped else None
        if isinstance(self._columns, Patches):
            self._columns.allocate()

    def _groups(self) -> list[tuple[int, int, int]]:
        """Tiles of columns that are alike: the first's first vector, how many, how many vectors."""
        width = self._tile[1]
        whole, rest = divmod(self._vectors, width)
        groups = [(0, whole, width), (whole * width, 1, rest)]
        return [group for group in groups if group[1] * group[2]]

    def _tiles(self, share: Share) -> None:
        """Units run along the rows of a tile of columns, then along tiles, then along the batch."""
        if self._parameters.outer is Outer.ROWS:
            with self._units(share, [self._batches]) as ((batch,), rows):
                self._enter(batch, index(0))
                self._all_tiles(rows)
            return
        for first, tiles, width in self._groups():
            with self._units(share, [self._batches, tiles]) as ((batch, tile), rows):
                self._enter(batch, index(0))
                starts = self._starts(index(first) + tile * index(width), width)
                self._copy_panel(starts)
                self._register_tiles(rows, starts)

    def _blocks(self, share: Share) -> None:
        """Units run along the rows of a block of columns, then along blocks and the batch."""
        with self._units(share, [self._batches, self._columns.blocks]) as ((batch, block), rows):
            self._enter(batch, block)
            self._all_tiles(rows)

    def _all_tiles(self, rows: tuple[Expr, Expr]) -> None:
        """All tiles of columns of a run of tiles of rows, one side outermost."""
        if self._parameters.outer is Outer.COLUMNS:
            self._column_tiles(partial(self._register_tiles, rows))
            return
        with T.serial(*rows) as row:
            start = vector_start(row, self._rows, self._tile[0])
            self._column_tiles(partial(self._register_tile, start))

    def _column_tiles(self, body: Callable[[Sequence[Expr]], None]) -> None:
        """``body`` of the starts of each tile of columns."""
        for first, tiles, width in self._groups():
            with nest([tiles]) as (tile,):
                body(self._starts(index(first) + tile * index(width), width))

    @contextmanager
    def _units(
        self, share: Share, outer: Sequence[int]
    ) -> Iterator[tuple[list[Expr], tuple[Expr, Expr]]]:
        """A part's run of tiles of rows, each of the index space ``outer`` having as many.

        Yields coordinates in that space and the range of tiles there: what two parts share of it,
        such as a panel, is written by each.
        """
        tiles = index(-(-self._rows // self._tile[0]))
        begin, end = span(share, prod(outer) * int(tiles))
        ceiling = tirx.floordiv(end + tiles - index(1), tiles)
        with T.serial(tirx.floordiv(begin, tiles), ceiling) as position:
            first = bind(T.max(begin - position * tiles, index(0)))
            last = bind(T.min(end - position * tiles, tiles))
            yield coordinates(position, outer), (first, last)

    def _enter(self, batch: Expr, block: Expr) -> None:
        self._batch, self._flat_batch = split(self._p.batch, batch), batch
        self._columns.enter(self._batch, batch, block)

    def _register_tiles(self, rows: tuple[Expr, Expr], starts: Sequence[Expr]) -> None:
        with T.serial(*rows) as row:
            self._register_tile(vector_start(row, self._rows, self._tile[0]), starts)

    def _starts(self, first: Expr, width: int) -> list[Expr]:
        """First column of each vector of a tile."""
        count, lanes = self._columns.count, self._lanes
        return [vector_start(first + index(v), count, lanes) for v in range(width)]

    def _copy_panel(self, starts: Sequence[Expr]) -> None:
        if self._panel is None:
            return
        with self._deep() as (k, env):
            for v, start in enumerate(starts):
                with T.vectorized(index(0), index(self._lanes)) as lane:
                    column = self._columns.value(k, env, start + lane)
                    T.buffer_store(self._panel, column, [k, v, lane])

    @contextmanager
    def _deep(self) -> Iterator[tuple[Expr, dict[Any, Expr]]]:
        """Loops over k: its flat index and its coordinates."""
        with nest(extents(self._p.k)) as at:
            yield bind(flat(extents(self._p.k), at)), _env(self._p.k, at)

    def _a(self, k: Expr, env: dict[Any, Expr], row: Expr) -> Expr:
        if self._a_matrix is not None:
            return self._a_matrix[self._flat_batch, row, k]
        env = {**self._batch, **env, **split(self._p.m, row)}
        return self._scope.evaluate(self._p.a, env)

    def _register_tile(self, row: Expr, starts: Sequence[Expr]) -> None:
        height, lanes = self._tile[0], self._lanes
        # One buffer per row: small ones stay on the stack, where LLVM makes them registers.
        acc = [local((len(starts), lanes), "float32") for _ in range(height)]
        tile = [(i, v) for i in range(height) for v in range(len(starts))]
        columns = local((len(starts), lanes), "float32")
        outer, inner = self._p.chunks
        totals = acc
        if outer:
            totals = [local((len(starts), lanes), "float32") for _ in range(height)]
            self._clear(totals, tile)
        with nest(extents(outer)) as chunk:
            self._clear(acc, tile)

            def step(at: list[Expr]) -> None:
                at = [*chunk, *at]
                k, env = bind(flat(extents(self._p.k), at)), _env(self._p.k, at)
                self._load_columns(columns, k, env, starts)
                for i in range(height):
                    a = bind(splat(self._a(k, env, row + index(i)), lanes))
                    for v in range(len(starts)):
                        term = a * load(columns, v, 0, lanes=lanes)
                        store(acc[i], load(acc[i], v, 0, lanes=lanes) + term, v, 0, lanes=lanes)

            steps(extents(inner), self._parameters.unroll, step)
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
                    value = self._columns.value(k, env, start + lane)
                else:
                    value = self._panel[k, v, lane]
                T.buffer_store(columns, value, [v, lane])

    def _finish(self, total: Callable[[Expr], Expr], row: Expr, start: Expr) -> None:
        """Apply what follows the product to one vector of sums, and store it."""
        p = self._p
        with T.vectorized(index(0), index(self._lanes)) as lane:
            env = {**self._batch, **split(p.m, row), **self._columns.at(start + lane)}
            env = {axis.var: index(0) for axis in p.stage.axes} | env
            at = [self._scope.evaluate(place, env) for place in p.places]
            if self._last is None:
                T.buffer_store(self._out, total(lane), at)
            else:
                self._scope.bind_value(p.stage.buffer, total(lane))
                T.buffer_store(self._out, self._scope.value(self._last, at), at)


def _lane_of(buffer: Buffer, *at: Any) -> Callable[[Expr], Expr]:
    """What is in a lane of the vector of ``buffer`` at ``at``."""
    return lambda lane: buffer[(*at, lane)]


def _in_place(factor: Expr) -> bool:
    return isinstance(factor, TensorLoad)


def _env(axes: Sequence[Axis], at: Sequence[Expr]) -> dict[Any, Expr]:
    return {axis.var: i for axis, i in zip(axes, at, strict=True)}


def _columns(
    product: Product,
    scope: Scope,
    window: Window | None,
    profile: Profile,
    parameters: Parameters,
) -> InPlace | Written | Patches:
    if parameters.columns is Columns.IN_PLACE:
        return InPlace(product, scope)
    if parameters.columns is Columns.WRITTEN:
        return Written(product, scope, profile.lanes)
    assert window is not None
    assert parameters.block is not None
    return Patches(product, scope, window, profile.lanes, parameters.block)
