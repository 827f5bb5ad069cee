"""Dense layers on CUDA: tiles of counts of common bits, and their epilogue in registers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, padded_tokens
from gsb_tvm.dialect.specs import Dense, Kind, Operand
from gsb_tvm.schedules.cuda.choosing import filling, fitting_tiles, tiles
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.grid import Place, launch, prim_func
from gsb_tvm.schedules.cuda.terms import terms
from gsb_tvm.schedules.cuda.tile import (
    COPY_WORDS,
    MMA_COLUMNS,
    PLANES,
    Panel,
    Shape,
    Tile,
)
from gsb_tvm.schedules.cuda.warp import word_of_quad
from gsb_tvm.schedules.dense.epilogue import real_bits
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, store
from gsb_tvm.targets import Profile

WORD_TILES = WORD_BITS // MMA_COLUMNS  # column tiles of one packed word


Parameters = Shape

# From the largest, which reads least, to the smallest, of which there are most.
_SHAPES = (
    Shape(128, 128, 2, 4, 8, 3),
    Shape(128, 64, 2, 2, 8, 3),
    Shape(64, 64, 2, 2, 8, 3),
    Shape(32, 64, 2, 2, 8, 3),
    Shape(16, 64, 1, 2, 8, 3),
)


def rule(spec: Dense, profile: Profile) -> Shape:
    """The largest tile of which there is one for each multiprocessor; else the smallest."""
    fitting = _fitting(spec, profile)
    return filling(fitting, lambda shape: blocks(spec, shape), profile) or fitting[-1]


def space(spec: Dense, profile: Profile) -> Iterator[Shape]:
    """Tiles with panels of more or fewer words, more or fewer of them ahead, either method."""
    yield from tiles(_fitting(spec, profile), _planes(spec), (2, 3, 4), profile)


def _fitting(spec: Dense, profile: Profile) -> list[Shape]:
    """Tiles that the padded columns can be cut into."""
    shapes = [shape for shape in _SHAPES if spec.padded_columns % shape.columns == 0]
    return fitting_tiles(shapes, _planes(spec), profile)


def _planes(spec: Dense) -> tuple[int, int]:
    """Planes of bits of the activation and of the weight."""
    return 1 + (spec.activation is Kind.MASKED), 1 + (spec.weight is Kind.MASKED)


def blocks(spec: Dense, shape: Shape) -> int:
    """Blocks of the launch."""
    rows = spec.rows.batch * padded_tokens(spec.rows.tokens)
    return -(-rows // shape.rows) * (spec.padded_columns // shape.columns)


def kernel(spec: Dense, _profile: Profile, shape: Shape) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    assert shape.columns % spec.column_tile == 0
    tensors = [*spec.inputs(), *spec.outputs()]
    return prim_func(tensors, lambda named: _Layer(spec, shape, named).write())


@dataclass(frozen=True)
class _Row:
    """A row of the tile: its image and token, and whether there is such a token."""

    batch: Expr
    token: Expr
    real: Expr


class _Layer:
    """A kernel being written."""

    def __init__(self, spec: Dense, shape: Shape, named: dict[str, Buffer]) -> None:
        self._spec, self._shape, self._t = spec, shape, named
        self._padded = padded_tokens(spec.rows.tokens)
        self._rows = spec.rows.batch * self._padded

    def write(self) -> None:
        """The one launch: a block for each tile, those of the same rows one after another."""
        spec, shape = self._spec, self._shape
        column_blocks = spec.padded_columns // shape.columns
        row_blocks = -(-self._rows // shape.rows)
        flag = Flag(self._t["out_zeros"]) if "out_zeros" in self._t else None
        with launch((column_blocks, row_blocks), shape.threads) as place:
            self._column, self._first_row = place.block[0], bind(place.block[1] * shape.rows)
            tile = self._tile(place)
            if spec.activation is Kind.MASKED:
                with T.If(self._t["a_zeros"][0] == 0):
                    with T.Then():
                        self._multiply(tile, Kind.SIGN)
                    with T.Else():
                        self._multiply(tile, Kind.MASKED)
            else:
                self._multiply(tile, spec.activation)
            if spec.thresholds is None:
                self._write_floats(tile)
            else:
                missing = self._write_bits(tile)
                if flag is not None:
                    flag.write(place, column_blocks * row_blocks, missing != 0)

    def _tile(self, place: Place) -> Tile:
        spec, shape = self._spec, self._shape

        def activation(plane: int, word: Expr, row: Expr) -> tuple[Buffer, tuple[Expr, ...]]:
            at = bind(T.min(self._first_row + row, self._rows - COPY_WORDS))
            return self._t[f"a_{PLANES[plane]}"], (at // self._padded, word, at % self._padded)

        def weight(plane: int, word: Expr, column: Expr) -> tuple[Buffer, tuple[Expr, ...]]:
            tile = self._column * (shape.columns // spec.column_tile) + column // spec.column_tile
            name = ("weight", "weight_nonzero")[plane]
            return self._t[name], (tile, word, column % spec.column_tile)

        of_a, of_b = _planes(spec)
        a = Panel(shape, shape.rows, of_a, activation)
        b = Panel(shape, shape.columns, of_b, weight)
        return Tile(shape, place, spec.rows.packed_shape[1], a, b)

    def _multiply(self, tile: Tile, activation: Kind) -> None:
        tile.multiply(terms(activation, self._spec.weight, self._spec.rows.features))

    def _row(self, tile: Tile, m: int, half: int) -> _Row:
        row = bind(self._first_row + tile.row(m, half))
        token = bind(row % self._padded)
        real = token < self._spec.rows.tokens
        if self._rows % self._shape.rows:
            real = T.And(real, row < self._rows)
        return _Row(bind(row // self._padded), token, bind(real))

    def _write_floats(self, tile: Tile) -> None:
        columns = self._spec.columns
        is_even = columns % 2 == 0
        for m in range(self._shape.row_tiles):
            for half in range(2):
                row = self._row(tile, m, half)
                with T.If(row.real), T.Then():
                    for n in range(self._shape.column_tiles):
                        column = bind(self._column * self._shape.columns + tile.column(n))
                        for j in range(0, 2, 2 if is_even else 1):
                            lanes = 2 if is_even else 1
                            dots = [tile.dot(m, n, half, j + i) for i in range(lanes)]
                            self._write_if_real(row, column + j, dots)

    def _write_if_real(self, row: _Row, column: Expr, dots: list[Expr]) -> None:
        if self._spec.columns % self._shape.columns == 0:
            self._write_neighbours(row, column, dots)
            return
        with T.If(column < self._spec.columns), T.Then():
            self._write_neighbours(row, column, dots)

    def _write_neighbours(self, row: _Row, column: Expr, dots: list[Expr]) -> None:
        lanes = len(dots)
        values = [T.cast(dot, "float32") for dot in dots]
        y: Expr = T.Shuffle(values, list(range(lanes))) if lanes > 1 else values[0]
        for i, step in enumerate(self._spec.steps):
            operand = self._t[f"operand{i}"]
            if step.operand is Operand.SCALAR:
                other = T.broadcast(operand[0], lanes) if lanes > 1 else operand[0]
            elif step.operand is Operand.COLUMN:
                other = load(operand, column, lanes=lanes)
            else:
                other = load(operand, row.batch, row.token, column, lanes=lanes)
            y = y * other if step.op == "mul" else y + other
        store(self._t["y"], y, row.batch, row.token, column, lanes=lanes)

    def _write_bits(self, tile: Tile) -> Expr:
        """Write words; bits of zeros where there is an element, gathered."""
        thresholds = self._spec.thresholds
        assert thresholds is not None
        is_masked = thresholds.kind is Kind.MASKED
        first_word = bind((self._column * self._shape.columns + tile.first_column) // WORD_BITS)
        missing: Expr = T.uint32(0)
        for w in range(self._shape.column_tiles // WORD_TILES):
            word = bind(first_word + w)
            bounds = _Bounds(self._t, "", self._spec, tile, word, w)
            zeros = _Bounds(self._t, "zero_", self._spec, tile, word, w) if is_masked else None
            for m in range(self._shape.row_tiles):
                for half in range(2):
                    row = self._row(tile, m, half)
                    bits = bind(bounds.word(tile, m, half) ^ self._t["flip"][word])
                    nonzero = None if zeros is None else bind(~zeros.word(tile, m, half))
                    real = real_bits(thresholds.rows, word)
                    if nonzero is not None:
                        lost = T.Select(row.real, ~nonzero & real, T.uint32(0))
                        missing = bind(missing | lost)
                    self._store(tile, row, word, bits, nonzero, real)
        return missing

    def _store(
        self, tile: Tile, row: _Row, word: Expr, bits: Expr, nonzero: Expr | None, real: Expr
    ) -> None:
        assert self._spec.thresholds is not None
        exists = T.And(word < self._spec.thresholds.rows.packed_shape[1], tile.member == 0)
        with T.If(T.And(row.real, exists)), T.Then():
            at = (row.batch, word, row.token)
            if nonzero is None:
                T.buffer_store(self._t["out_bits"], bits & real, list(at))
            else:
                T.buffer_store(self._t["out_bits"], bits & nonzero & real, list(at))
                T.buffer_store(self._t["out_nonzero"], nonzero & real, list(at))


class _Bounds:
    """Intervals of the columns of one word that are this lane's, and the words they make."""

    def __init__(
        self, t: dict[str, Buffer], prefix: str, spec: Dense, tile: Tile, word: Expr, w: int
    ) -> None:
        self._tiles = range(w * WORD_TILES, (w + 1) * WORD_TILES)
        self._bounds = []
        for n in range(WORD_TILES):
            for j in range(2):
                column = word * WORD_BITS + (n * MMA_COLUMNS + j) + tile.member * 2
                lo = bind(T.cast(t[f"{prefix}lo"][column], "int32"))
                width = bind(T.cast(t[f"{prefix}width"][column], "uint32"))
                self._bounds.append((lo, width))

    def word(self, tile: Tile, m: int, half: int) -> Expr:
        """The word of a row: a bit for each column whose product lies in its interval."""
        own: Expr = T.uint32(0)
        for n in range(WORD_TILES):
            for j in range(2):
                lo, width = self._bounds[n * 2 + j]
                distance = T.reinterpret("uint32", tile.dot(m, self._tiles[n], half, j) - lo)
                bit = T.uint32(1 << (n * MMA_COLUMNS + j))
                own = own | T.Select(distance <= width, bit, T.uint32(0))
        return word_of_quad(own, tile.member)
