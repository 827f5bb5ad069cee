"""The loop nest of a dense layer: column blocks, token tiles, register tiles.

The weights of a column block stay in L1 while all tokens pass; a token tile's words are
neighbours in memory. Tails are tiles of their own, cut when the kernel is written: nothing outside
a tensor's logical shape is ever stored.
"""

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense.counters import Cells, Tile, count_bytes, count_words
from gsb_tvm.schedules.dense.epilogue import Block, Epilogue, epilogue, span
from gsb_tvm.schedules.dense.formula import Base, Part, Product, Term, product
from gsb_tvm.schedules.dense.tiles import Tiles, tiles
from gsb_tvm.schedules.vector import bind, local, popcount, prim_func, splat
from gsb_tvm.targets import Profile

Expr = Any
Buffer = Any


def kernel(spec: Dense, profile: Profile) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``.

    ``spec.column_tile`` must be the profile's (:func:`column_tile`).
    """
    shape = tiles(profile)
    assert spec.column_tile == shape.column_tile
    tensors = [*spec.inputs(), *spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        layer = _Layer(spec, shape, named, profile.has_vpopcntdq)
        if spec.activation is not Kind.MASKED:
            layer.write(product(spec.activation, spec.weight))
            return
        with T.If(named["a_zeros"][0] == 0):
            with T.Then():
                layer.write(product(Kind.SIGN, spec.weight))
            with T.Else():
                layer.write(product(Kind.MASKED, spec.weight))

    return prim_func(tensors, body)


@dataclass(frozen=True)
class _Layer:
    """Writes the loops of one spec."""

    spec: Dense
    shape: Tiles
    named: dict[str, Buffer]
    has_word_popcount: bool

    def write(self, product: Product) -> None:
        """Emit the whole layer for one form of the product."""
        finish = epilogue(self.spec, self.named, self.shape.lanes)
        full, rest = divmod(self.spec.computed_columns, self.shape.column_tile)
        with T.serial(0, self.spec.rows.batch) as batch:
            for first, count, columns in ((0, full, self.shape.column_tile), (full, 1, rest)):
                if count and columns:
                    with T.serial(0, count) as j:
                        self._block(product, finish, batch, first + j, columns)
        finish.leave()

    def _block(
        self, product: Product, finish: Epilogue, batch: Expr, tile: Expr, columns: int
    ) -> None:
        base: int | Buffer = 0
        if product.base is Base.FEATURES:
            base = self.spec.rows.features
        elif product.base is Base.COLUMN:
            base = self._column_base(product, tile, columns)
        first = bind(tile * self.shape.column_tile)
        block = Block(batch, first, columns, 0 if product.halved else base, product.factor)
        finish.enter(block)
        rows = self.shape.rows
        full, rest = divmod(self.spec.rows.tokens, rows)
        for start, count, height in ((0, full, rows), (full * rows, 1, rest)):
            if count and height:
                with T.serial(0, count) as i:
                    token = bind(start + i * height)
                    self._rows(product, finish, block, base, tile, token, height)

    def _rows(
        self,
        product: Product,
        finish: Epilogue,
        block: Block,
        base: int | Buffer,
        tile: Expr,
        token: Expr,
        height: int,
    ) -> None:
        lanes = self.shape.lanes
        vectors = -(-block.columns // lanes)
        counts = [local((vectors * lanes,), "int32") for _ in range(height)]
        full, rest = divmod(vectors, self.shape.vectors)
        for start, count, wide in (
            (0, full, self.shape.vectors),
            (full * self.shape.vectors, 1, rest),
        ):
            if not (count and wide):
                continue

            def register_tile(first: Expr, wide: int = wide) -> None:
                total = self._count(product, block.batch, tile, token, height, first, wide)
                for i in range(height):
                    for j in range(wide):
                        column = (first + j) * lanes
                        value = total[i, j]
                        if product.halved:
                            value = self._halved(base, value, column)
                        T.buffer_store(counts[i], value, [span(column, lanes)])

            if count == 1:
                register_tile(start)
            else:
                with T.serial(0, count) as s:
                    register_tile(start + s * wide)
        for i in range(height):
            finish.row(block, token + i, counts[i])

    def _halved(self, base: int | Buffer, total: Expr, column: Expr) -> Expr:
        """(total - base) / 2, where both have the same parity."""
        lanes = self.shape.lanes
        if not isinstance(base, int):
            total = total - base[span(column, lanes)]
        return total >> splat(1, lanes, "int32")

    def _count(
        self,
        product: Product,
        batch: Expr,
        tile: Expr,
        token: Expr,
        height: int,
        first: Expr,
        wide: int,
    ) -> Cells:
        lanes = self.shape.lanes

        def activation(term: Term, word: Expr, row: int) -> Expr:
            return self._part("a_bits", "a_nonzero", term.activation, batch, word, token + row)

        def weight(term: Term, word: Expr, vector: int) -> Expr:
            return self._weight(term.weight, tile, word, span((first + vector) * lanes, lanes))

        count = count_words if self.has_word_popcount else count_bytes
        words = self.spec.rows.packed_shape[1]
        return count(Tile(height, wide, lanes, words, activation, weight), product.terms)

    def _weight(self, part: Part, *index: Expr) -> Expr:
        return self._part("weight", "weight_nonzero", part, *index)

    def _part(self, bits: str, nonzero: str, part: Part, *index: Expr) -> Expr:
        value = self.named[bits][index]
        if part is Part.POSITIVE:
            return value & self.named[nonzero][index]
        if part is Part.NEGATIVE:
            return ~value & self.named[nonzero][index]
        return value

    def _column_base(self, product: Product, tile: Expr, columns: int) -> Buffer:
        """popc(w) of every column of the block, or popc(p) - popc(m)."""
        lanes = self.shape.lanes
        base = local((-(-columns // lanes) * lanes,), "int32")
        with T.serial(0, -(-columns // lanes)) as v:
            at = span(v * lanes, lanes)
            T.buffer_store(base, splat(0, lanes, "int32"), [at])
            with T.serial(0, self.spec.rows.packed_shape[1]) as k:
                for term in product.terms:
                    bits = self._weight(term.weight, tile, k, at)
                    count = T.cast(popcount(bits), f"int32x{lanes}")
                    sum_ = base[at] + count if term.sign > 0 else base[at] - count
                    T.buffer_store(base, sum_, [at])
        return base
