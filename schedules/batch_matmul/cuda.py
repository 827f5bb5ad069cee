"""Products of superposed tensors on CUDA: a tile of counts for every pair of planes, one by one.

A pair's weight is ``fl(a_scale * b_scale)``; products and the running sum over pairs are rounded.
The tile's float sums stay in registers beside the counts, so that y is written once.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import Rows, padded_tokens
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules.batch_matmul.formula import kinds
from gsb_tvm.schedules.cuda.grid import launch, prim_func, registers, synchronize
from gsb_tvm.schedules.cuda.terms import terms
from gsb_tvm.schedules.cuda.tile import COPY_WORDS, Method, Panel, Shape, Tile, shared_bytes
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put, store
from gsb_tvm.targets import Profile
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES, Gpu

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
    gpu = profile.gpu
    assert gpu is not None
    fitting = _fitting(spec, gpu)
    enough = (shape for shape in fitting if blocks(spec, shape) >= gpu.multiprocessors)
    return next(enough, fitting[-1])


def space(spec: BatchMatmul, profile: Profile) -> Iterator[Shape]:
    """Tiles with panels of more or fewer words, more or fewer of them ahead, either method."""
    gpu = profile.gpu
    assert gpu is not None
    methods = [Method.TENSOR, Method.POPCOUNT] if gpu.has_bit_products else [Method.POPCOUNT]
    for shape in _fitting(spec, gpu):
        for words in (4, 8, 16):
            for stages in (2, 3):
                for method in methods:
                    found = replace(shape, words=words, stages=stages, method=method)
                    if _shared_bytes(spec, found) <= STATIC_SHARED_BYTES:
                        yield found


def _fitting(spec: BatchMatmul, gpu: Gpu) -> list[Shape]:
    method = Method.TENSOR if gpu.has_bit_products else Method.POPCOUNT
    shapes = [replace(shape, method=method) for shape in _SHAPES]
    return [shape for shape in shapes if _shared_bytes(spec, shape) <= STATIC_SHARED_BYTES]


def _planes(some: tuple[Kind, ...]) -> int:
    return 1 + (Kind.MASKED in some)


def _shared_bytes(spec: BatchMatmul, shape: Shape) -> int:
    return shared_bytes(shape, _planes(spec.a_kinds), _planes(spec.b_kinds))


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
            a = Panel(shape, shape.rows, _planes(spec.a_kinds), self._source("a"))
            b = Panel(shape, shape.columns, _planes(spec.b_kinds), self._source("b"))
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
            name = f"{side}{number}_{('bits', 'nonzero')[plane]}"
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
