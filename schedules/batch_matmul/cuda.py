"""Products of superposed tensors on CUDA: a tile of counts for every pair of planes, one by one.

A pair's weight is ``fl(a_scale * b_scale)``; products and the running sum over pairs are rounded.
The tile's float sums stay in registers beside the counts, so that y is written once.
"""

from collections.abc import Callable, Iterator
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import Rows, padded_tokens
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules.batch_matmul.formula import kinds
from gsb_tvm.schedules.cuda.choosing import filling, fitting_tiles, tiles
from gsb_tvm.schedules.cuda.grid import launch, prim_func, registers, synchronize
from gsb_tvm.schedules.cuda.terms import terms
from gsb_tvm.schedules.cuda.tile import COPY_WORDS, PLANES, Panel, Shape, Tile
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put, store
from gsb_tvm.targets import Profile

Parameters = Shape

# From the largest, which reads least, to the smallest, of which there are most.
_SHAPES = (
    Shape(128, 64, 2, 2, 8, 3),
    Shape(64, 64, 2, 2, 8, 3),
    Shape(32, 64, 1, 4, 8, 3),
    Shape(32, 32, 1, 4, 8, 3),
)


def rule(spec: BatchMatmul, profile: Profile) -> Shape:
    """The largest tile of which there is one for each multiprocessor; else the smallest."""
    fitting = _fitting(spec, profile)
    return filling(fitting, lambda shape: blocks(spec, shape), profile) or fitting[-1]


def space(spec: BatchMatmul, profile: Profile) -> Iterator[Shape]:
    """Tiles with panels of more or fewer words, more or fewer of them ahead, either method."""
    yield from tiles(_fitting(spec, profile), _planes(spec), (2, 3), profile)


def _fitting(spec: BatchMatmul, profile: Profile) -> list[Shape]:
    return fitting_tiles(_SHAPES, _planes(spec), profile)


def _planes(spec: BatchMatmul) -> tuple[int, int]:
    """Planes of bits of a and of b that are multiplied at once."""
    return 1 + (Kind.MASKED in spec.a_kinds), 1 + (Kind.MASKED in spec.b_kinds)


def _grid(spec: BatchMatmul, shape: Shape) -> tuple[int, int]:
    """Tiles along columns and rows."""
    return -(-spec.b.tokens // shape.columns), -(-spec.a.tokens // shape.rows)


def blocks(spec: BatchMatmul, shape: Shape) -> int:
    """Blocks of the launch."""
    across, down = _grid(spec, shape)
    return spec.a.batch * across * down


def kernel(spec: BatchMatmul, _profile: Profile, shape: Shape) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    tensors = [*spec.inputs(), *spec.outputs()]
    return prim_func(tensors, lambda named: _Product(spec, shape, named).write())


class _Product:
    """A kernel being written."""

    def __init__(self, spec: BatchMatmul, shape: Shape, named: dict[str, Buffer]) -> None:
        self._spec, self._shape, self._t = spec, shape, named
        self._pair = 0, 0  # planes that panels are copied from: those multiplied now

    def write(self) -> None:
        """The one launch: a block for each tile, those of the same rows one after another."""
        spec, shape = self._spec, self._shape
        across, down = _grid(spec, shape)
        with launch((spec.a.batch * down * across,), shape.threads) as place:
            row_block = bind(place.block[0] // across)
            self._batch = bind(row_block // down)
            self._first_row = bind(row_block % down * shape.rows)
            self._first_column = bind(place.block[0] % across * shape.columns)
            of_a, of_b = _planes(spec)
            a = Panel(shape, shape.rows, of_a, self._source("a"))
            b = Panel(shape, shape.columns, of_b, self._source("b"))
            tile = Tile(shape, place, spec.a.packed_shape[1], a, b)
            self._sums = registers(shape.row_tiles * shape.column_tiles * 4, "float32")
            self._by_zeros(tile)
            self._write(tile)

    def _source(self, side: str) -> Callable[..., tuple[Buffer, tuple[Expr, ...]]]:
        """Words of the plane of that side that is multiplied now."""
        rows: Rows = getattr(self._spec, side)
        last = padded_tokens(rows.tokens) - COPY_WORDS

        def source(plane: int, word: Expr, row: Expr) -> tuple[Buffer, tuple[Expr, ...]]:
            first = self._first_row if side == "a" else self._first_column
            # Rows beyond the last are the last ones once more.
            at = bind(T.min(first + row, last))
            number = self._pair[side == "b"]
            name = f"{side}{number}_{PLANES[plane]}"
            return self._t[name], (self._batch, word, at)

        return source

    def _by_zeros(self, tile: Tile) -> None:
        """Masked planes are signs where none of them holds a zero."""
        flags = [
            self._t[f"{side}{i}_zeros"][0]
            for side in "ab"
            for i, kind in enumerate(getattr(self._spec, f"{side}_kinds"))
            if kind is Kind.MASKED
        ]
        if not flags:
            self._sum_up(tile, masked=False)
            return
        some = flags[0]
        for flag in flags[1:]:
            some = some | flag
        with T.If(some == 0):
            with T.Then():
                self._sum_up(tile, masked=False)
            with T.Else():
                self._sum_up(tile, masked=True)

    def _sum_up(self, tile: Tile, masked: bool) -> None:
        """Products of all pairs of planes, weighted, in order."""
        a_kinds, b_kinds = kinds(self._spec, masked)
        for g, a_kind in enumerate(a_kinds):
            for r, b_kind in enumerate(b_kinds):
                if g or r:
                    synchronize()  # all have used the panels of the pair before
                self._pair = g, r
                tile.multiply(terms(a_kind, b_kind, self._spec.a.features))
                weight = bind(self._t["a_scale"][g] * self._t["b_scale"][r])
                for at, dot in enumerate(self._dots(tile)):
                    term = T.cast(dot, "float32") * weight
                    put(self._sums, self._sums[at] + term if g or r else term, at)

    def _dots(self, tile: Tile) -> Iterator[Expr]:
        for m, n in tile.fragments():
            for half in range(2):
                for j in range(2):
                    yield tile.dot(m, n, half, j)

    def _write(self, tile: Tile) -> None:
        """Write what there is of the tile; neighbours at once where y's rows are aligned."""
        spec = self._spec
        lanes = 2 if spec.b.tokens % 2 == 0 else 1
        for at, (m, n) in enumerate(tile.fragments()):
            for half in range(2):
                row = bind(self._first_row + tile.row(m, half))
                for j in range(0, 2, lanes):
                    column = bind(self._first_column + tile.column(n) + j)
                    own = [self._sums[at * 4 + half * 2 + j + i] for i in range(lanes)]
                    y = T.Shuffle(own, list(range(lanes))) if lanes > 1 else own[0]
                    exists = T.And(row < spec.a.tokens, column < spec.b.tokens)
                    with T.If(exists), T.Then():
                        store(self._t["y"], y, self._batch, row, column, lanes=lanes)
