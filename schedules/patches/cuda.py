"""A patch embedding on CUDA: a float32 matrix product by multiply-adds, tokens from registers.

Rows of the product are patches of all images, columns those of the tokens. A block has a tile of
it; panels of both operands lie in shared memory, the depth first, and while one is multiplied the
next comes into registers: a row of the image in 16-byte words, and weights, which are multiplied
out where they are a lattice. A warp has 4 x 8 lanes, each with quads of rows and of columns. Where
tiles must be small to be many, several warps share one tile, each with its slice of every panel,
and sum up at the end, always in the same order.

Budget: at batch 256 the bound is the machine's multiply-adds, 8 x 8 of which stand against four
16-byte loads of shared memory; at batch 1 it is the L2's latency, which a panel must outlast.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.cuda.choosing import filling
from gsb_tvm.schedules.cuda.grid import (
    WARP,
    Place,
    call,
    launch,
    prim_func,
    registers,
    shared,
    synchronize,
)
from gsb_tvm.schedules.patches.cuda_panels import Images, Weights
from gsb_tvm.schedules.patches.cuda_tile import (
    LANE_COLUMNS,
    PANELS,
    QUAD,
    WARP_COLUMNS,
    WARP_ROWS,
    Parameters,
)
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, put, store
from gsb_tvm.targets import Profile
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES

__all__ = ["Parameters", "blocks", "kernel", "rule", "space"]

# From the largest, which reads least, to the smallest, of which there are most. A multiprocessor
# has registers for three blocks of the first.
_TILES = (
    Parameters(2, 2, 2, 2, 1, 16),
    Parameters(2, 1, 2, 2, 2, 16),
    Parameters(1, 1, 2, 2, 4, 16),
    Parameters(1, 1, 2, 1, 8, 32),
    Parameters(1, 1, 1, 1, 8, 64),
)
# Larger ones read even less, and leave no room for as many warps.
_LARGE_TILES = (Parameters(4, 2, 2, 2, 1, 16), Parameters(4, 1, 2, 4, 1, 16))
_CHUNKS = (8, 16, 32, 64)
_MOST_THREADS = 512


def rule(spec: Patches, profile: Profile) -> Parameters:
    """The largest tile of which there is one for each multiprocessor; else the smallest."""
    return filling(_TILES, lambda tile: blocks(spec, tile), profile) or _TILES[-1]


def space(_spec: Patches, _profile: Profile) -> Iterator[Parameters]:
    """Every tile with shorter and longer panels, and with fewer and more slices."""
    for tile in (*_TILES, *_LARGE_TILES):
        for slices in sorted({max(1, tile.slices // 2), tile.slices, 2 * tile.slices}):
            for chunk in _CHUNKS:
                found = replace(tile, slices=slices, chunk=chunk)
                if chunk % slices == 0 and _fits(found):
                    yield found


def _fits(tile: Parameters) -> bool:
    return tile.shared_bytes <= STATIC_SHARED_BYTES and tile.threads <= _MOST_THREADS


def blocks(spec: Patches, tile: Parameters) -> int:
    """Blocks of the launch."""
    rows = spec.batch * spec.grid[0] * spec.grid[1]
    return -(-rows // tile.rows) * -(-spec.columns // tile.columns)


def kernel(spec: Patches, _profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    assert parameters.chunk % QUAD == parameters.chunk % parameters.slices == 0
    tensors = [*spec.inputs(), *spec.outputs()]
    return prim_func(tensors, lambda named: _Product(spec, parameters, named).write())


class _Product:
    """A kernel being written."""

    def __init__(self, spec: Patches, tile: Parameters, named: dict[str, Buffer]) -> None:
        self._spec, self._tile, self._t = spec, tile, named
        self._patches = spec.grid[0] * spec.grid[1]
        self._rows = spec.batch * self._patches

    def write(self) -> None:
        """The one launch: a block for each tile, those of the same rows one after another."""
        spec, tile = self._spec, self._tile
        grid = -(-spec.columns // tile.columns), -(-self._rows // tile.rows)
        with launch(grid, tile.threads) as place:
            self._first_column = bind(place.block[0] * tile.columns)
            self._first_row = bind(place.block[1] * tile.rows)
            part = _Part(tile, place)
            sums = registers(tile.sums, "float32")
            for i in range(tile.sums):
                put(sums, T.float32(0), i)
            self._multiply(place, part, sums)
            if tile.slices > 1:
                _gather(tile, part, sums)
                with T.If(part.slice == 0), T.Then():
                    self._store(part, sums)
            else:
                self._store(part, sums)

    def _multiply(self, place: Place, part: "_Part", sums: Buffer) -> None:
        """Add all products; every thread of the block must come here."""
        tile = self._tile
        panels = [
            Images(self._spec, tile, place, self._t["image"], self._first_row),
            Weights(self._spec, tile, place, self._t, self._first_column),
        ]
        count = -(-self._spec.depth // tile.chunk)

        def each(step: Callable[[Any], None]) -> None:
            for panel in panels:
                step(panel)

        each(lambda panel: panel.fetch(T.int32(0)))
        each(lambda panel: panel.put(T.int32(0)))
        synchronize()
        with T.serial(count) as chunk:
            with T.If(chunk < count - 1), T.Then():
                each(lambda panel: panel.fetch(bind((chunk + 1) * tile.chunk)))
            part.multiply(bind(chunk % PANELS), panels[0].shared, panels[1].shared, sums)
            with T.If(chunk < count - 1), T.Then():
                each(lambda panel: panel.put(bind((chunk + 1) % PANELS)))
            synchronize()

    def _store(self, part: "_Part", sums: Buffer) -> None:
        """The steps behind the sum, and the constant tokens before each image's first patch."""
        for i in range(self._tile.row_quads * QUAD):
            row = bind(self._first_row + part.row(i))
            with T.If(row < self._rows), T.Then():
                batch, patch = bind(row // self._patches), bind(row % self._patches)
                for q in range(self._tile.column_quads):
                    column = bind(self._first_column + part.column(q))
                    self._store_quad(batch, patch, column, sums, part.at(i, q))

    def _store_quad(self, batch: Expr, patch: Expr, column: Expr, sums: Buffer, at: int) -> None:
        columns = self._spec.columns
        if columns % QUAD == 0:
            with T.If(column < columns), T.Then():
                self._store_some(batch, patch, column, load(sums, at, lanes=QUAD), QUAD)
            return
        for j in range(QUAD):
            with T.If(column + j < columns), T.Then():
                self._store_some(batch, patch, column + j, sums[at + j], 1)

    def _store_some(self, batch: Expr, patch: Expr, column: Expr, y: Expr, lanes: int) -> None:
        spec, t = self._spec, self._t
        if spec.bias:
            y = y + load(t["bias"], column, lanes=lanes)
        if spec.position:
            y = y + load(t["position"], patch, column, lanes=lanes)
        store(t["y"], y, batch, patch + spec.prefix, column, lanes=lanes)
        if spec.prefix:
            with T.If(patch == 0), T.Then(), T.serial(spec.prefix) as i:
                constant = load(t["rows"], i, column, lanes=lanes)
                store(t["y"], constant, batch, i, column, lanes=lanes)


class _Part:
    """What one thread has of the tile: quads of rows, quads of columns, a slice of the depth."""

    def __init__(self, tile: Parameters, place: Place) -> None:
        self._tile = tile
        parts = tile.warp_rows * tile.warp_columns
        self.slice, warp = bind(place.warp // parts), bind(place.warp % parts)
        rows, columns = tile.row_quads * WARP_ROWS, tile.column_quads * WARP_COLUMNS
        self._row = bind(warp // tile.warp_columns * rows + place.lane // LANE_COLUMNS * QUAD)
        self._column = bind(warp % tile.warp_columns * columns + place.lane % LANE_COLUMNS * QUAD)
        self.thread = bind(place.thread % (parts * WARP))

    def row(self, i: int) -> Expr:
        """Of the tile, of this thread's i-th row."""
        return self._row + (i // QUAD * WARP_ROWS + i % QUAD)

    def column(self, q: int) -> Expr:
        """Of the tile, the first of this thread's q-th quad."""
        return self._column + q * WARP_COLUMNS

    def at(self, i: int, q: int) -> int:
        """Place among the sums of a row and a quad of columns."""
        return (i * self._tile.column_quads + q) * QUAD

    def multiply(self, panel: Expr, images: Buffer, weights: Buffer, sums: Buffer) -> None:
        """Add the products of this thread's slice of a panel."""
        tile = self._tile
        length = tile.chunk // tile.slices
        first = bind(self.slice * length)
        a = registers(tile.row_quads * QUAD, "float32")
        b = registers(tile.column_quads * QUAD, "float32")
        with T.unroll(length) as step:
            k = bind(first + step)
            for quads, buffer, source, where in (
                (tile.row_quads, a, images, lambda q: self.row(q * QUAD)),
                (tile.column_quads, b, weights, self.column),
            ):
                for q in range(quads):
                    found = load(source, panel, k, where(q), lanes=QUAD)
                    store(buffer, found, q * QUAD, lanes=QUAD)
            for i in range(tile.row_quads * QUAD):
                for j in range(tile.column_quads * QUAD):
                    at = self.at(i, j // QUAD) + j % QUAD
                    put(sums, call("gsb_fma", a[i], b[j], sums[at], dtype="float32"), at)


def _gather(tile: Parameters, part: _Part, sums: Buffer) -> None:
    """Add the sums of all slices to those of the first."""
    count = tile.threads // tile.slices
    others = shared((tile.slices - 1, tile.sums // QUAD, count, QUAD), "float32")
    with T.If(part.slice > 0), T.Then():
        for q in range(tile.sums // QUAD):
            found = load(sums, q * QUAD, lanes=QUAD)
            store(others, found, part.slice - 1, q, part.thread, T.int32(0), lanes=QUAD)
    synchronize()
    with T.If(part.slice == 0), T.Then():
        for q in range(tile.sums // QUAD):
            total = load(sums, q * QUAD, lanes=QUAD)
            for i in range(tile.slices - 1):
                total = total + load(others, i, q, part.thread, T.int32(0), lanes=QUAD)
            store(sums, total, q * QUAD, lanes=QUAD)
