"""Dense layers on CUDA: tiles of counts of common bits, and their epilogue in registers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, padded_tokens
from gsb_tvm.dialect.specs import Dense, Kind, Operand
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.grid import Place, call, launch, prim_func
from gsb_tvm.schedules.cuda.terms import terms
from gsb_tvm.schedules.cuda.tile import (
    COPY_WORDS,
    MMA_COLUMNS,
    Method,
    Panel,
    Shape,
    Tile,
    shared_bytes,
)
from gsb_tvm.schedules.dense.epilogue import real_bits
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, store
from gsb_tvm.targets import Profile
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES, Gpu

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
    gpu = profile.gpu
    assert gpu is not None
    fitting = _fitting(spec, gpu)
    enough = (s for s in fitting if blocks(spec, s) >= gpu.multiprocessors)
    return next(enough, fitting[-1])


def space(spec: Dense, profile: Profile) -> Iterator[Shape]:
    """Tiles with panels of more or fewer words, more or fewer of them ahead, either method."""
    gpu = profile.gpu
    assert gpu is not None
    methods = [Method.TENSOR, Method.POPCOUNT] if gpu.has_bit_products else [Method.POPCOUNT]
    for shape in _fitting(spec, gpu):
        for words in (4, 8, 16):
            for stages in (2, 3, 4):
                for method in methods:
                    found = replace(shape, words=words, stages=stages, method=method)
                    if _shared_bytes(spec, found) <= STATIC_SHARED_BYTES:
                        yield found


def _fitting(spec: Dense, gpu: Gpu) -> list[Shape]:
    """Tiles that the padded columns can be cut into."""
    method = Method.TENSOR if gpu.has_bit_products else Method.POPCOUNT
    shapes = [replace(s, method=method) for s in _SHAPES if spec.padded_columns % s.columns == 0]
    return [s for s in shapes if _shared_bytes(spec, s) <= STATIC_SHARED_BYTES]


def _shared_bytes(spec: Dense, shape: Shape) -> int:
    planes = [1 + (kind is Kind.MASKED) for kind in (spec.activation, spec.weight)]
    return shared_bytes(shape, *planes)


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
            name = ("a_bits", "a_nonzero")[plane]
            return self._t[name], (at // self._padded, word, at % self._padded)

        def weight(plane: int, word: Expr, column: Expr) -> tuple[Buffer, tuple[Expr, ...]]:
            tile = self._column * (shape.columns // spec.column_tile) + column // spec.column_tile
            name = ("weight", "weight_nonzero")[plane]
            return self._t[name], (tile, word, column % spec.column_tile)

        a = Panel(shape, shape.rows, 1 + (spec.activation is Kind.MASKED), activation)
        b = Panel(shape, shape.columns, 1 + (spec.weight is Kind.MASKED), weight)
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
        word = bind(own << T.cast(tile.member * 2, "uint32"))
        for distance in (1, 2):
            word = bind(word | call("gsb_exchange", word, T.int32(distance), dtype="uint32"))
        return word
