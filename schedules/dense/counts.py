"""The loop nest of a dense layer by counting.

Column blocks, then token tiles, then register tiles. The weights of a column block stay in L1
while all tokens of a part pass; a token tile's words are neighbours in memory. Tails are tiles of
their own, cut when the kernel is written: nothing outside a tensor's logical shape is ever stored.
Parts share the token tiles of every batch element, and each prepares the column blocks for itself;
or they share the column blocks.
"""

from collections.abc import Callable
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.carry_save import count_carry_save
from gsb_tvm.schedules.dense.counters import Cells, Tile, count_bytes, count_words, repeat
from gsb_tvm.schedules.dense.epilogue import Block, Epilogue, span
from gsb_tvm.schedules.dense.formula import Base, Product, Term
from gsb_tvm.schedules.dense.lookup import Lookup
from gsb_tvm.schedules.dense.operands import Plane, column_base
from gsb_tvm.schedules.dense.tiles import LINE_WORDS, Method, Split, Tiles, lines_ahead
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import bind, local, prefetch, splat

Expr = Any
Buffer = Any


class Nest:
    """Writes a part's loops for one form of the product."""

    def __init__(
        self,
        spec: Dense,
        shape: Tiles,
        named: dict[str, Buffer],
        product: Product,
        finish: Epilogue,
        share: Share,
    ) -> None:
        self.spec, self.shape, self.product = spec, shape, product
        self.finish, self.share = finish, share
        self.units = share.span(self._shared())
        self.words = spec.rows.packed_shape[1]
        self.activation = Plane(named["a_bits"], named.get("a_nonzero"))
        self.weight = Plane(named["weight"], named.get("weight_nonzero"))
        self.lookup: Lookup | None = None
        if shape.method is Method.LOOKUP:
            self.lookup = Lookup(product.terms, self.words, shape)

    def _shared(self) -> int:
        """Whole units that parts share."""
        if self.shape.split is Split.COLUMNS:
            return self.spec.computed_columns // self.shape.column_tile
        return self.spec.rows.tokens // self.shape.rows

    def write(self) -> None:
        """Emit what the part does of the layer."""
        columns, tile = self.spec.computed_columns, self.shape.column_tile
        with T.serial(0, self.spec.rows.batch) as batch:

            def block(first: Expr, width: int) -> None:
                self._block(batch, first, width)

            if self.shape.split is Split.COLUMNS:
                self._of_part(columns, tile, block)
            else:
                repeat(columns, tile, block)

    def _block(self, batch: Expr, first: Expr, columns: int) -> None:
        tile = T.floordiv(first, self.shape.column_tile)
        base: int | Buffer = 0
        if self.product.base is Base.FEATURES:
            base = self.spec.rows.features
        elif self.product.base is Base.COLUMN:
            base = column_base(
                self.weight, self.product, tile, self.words, columns, self.shape.lanes
            )
        beside = 0 if self.product.halved else base
        block = Block(batch, first, columns, beside, self.product.factor)
        self.finish.enter(block)
        if self.lookup is not None:
            self.lookup.enter(columns, lambda part, k, at: self.weight.read(part, tile, k, at))
        self._tokens(lambda token, height: self._rows(block, base, tile, token, height))

    def _tokens(self, rows: Callable[[Expr, int], None]) -> None:
        """``rows(first, height)`` for every token tile of the part."""
        if self.shape.split is Split.COLUMNS:
            repeat(self.spec.rows.tokens, self.shape.rows, rows)
        else:
            self._of_part(self.spec.rows.tokens, self.shape.rows, rows)

    def _of_part(self, extent: int, size: int, body: Callable[[Expr, int], None]) -> None:
        """``body(first, size)`` for the units of the part; what is left is the last part's."""
        full, rest = divmod(extent, size)
        if full:
            with T.serial(*self.units) as i:
                body(bind(i * size), size)
        if rest:
            with T.If(self.share.is_last), T.Then():
                body(full * size, rest)

    def _rows(self, block: Block, base: int | Buffer, tile: Expr, token: Expr, height: int) -> None:
        lanes = self.shape.lanes
        if self.shape.ahead:
            self._fetch_ahead(tile, token)
        vectors = -(-block.columns // lanes)
        counts = [local((vectors * lanes,), "int32") for _ in range(height)]

        def register_tile(first: Expr, wide: int) -> None:
            total = self._count(block.batch, tile, token, height, first, wide)
            for (i, j), value in total.items():
                at = span((first + j) * lanes, lanes)
                if self.product.halved:
                    value = value if isinstance(base, int) else value - base[at]
                    value = value >> splat(1, lanes, "int32")
                T.buffer_store(counts[i], value, [at])

        repeat(vectors, self.shape.vectors, register_tile)
        for i in range(height):
            self.finish.row(block, token + i, counts[i])

    def _fetch_ahead(self, tile: Expr, token: Expr) -> None:
        """Ask for a token tile's share of the next block's weights.

        They are met once per image and come from L3 or memory; a block takes long enough for that.
        """
        tokens, height = self.spec.rows.tokens, self.shape.rows
        each, per_word = lines_ahead(self.words, self.shape, -(-tokens // height))
        last = self.spec.padded_columns // self.shape.column_tile - 1
        ahead = bind(T.min(tile + 1, T.int32(last)))
        for i in range(each):
            line = bind(T.floordiv(token, height) * each + i)
            word = T.min(T.floordiv(line, per_word), T.int32(self.words - 1))
            prefetch(self.weight.bits, ahead, word, T.floormod(line, per_word) * LINE_WORDS)

    def _count(
        self, batch: Expr, tile: Expr, token: Expr, height: int, first: Expr, wide: int
    ) -> Cells:
        lanes = self.shape.lanes

        def activation(term: Term, word: Expr, row: int) -> Expr:
            return self.activation.read(term.activation, batch, word, token + row)

        def weight(term: Term, word: Expr, vector: int) -> Expr:
            return self.weight.read(term.weight, tile, word, span((first + vector) * lanes, lanes))

        cells = Tile(height, wide, lanes, self.words, activation, weight)
        if self.lookup is not None:
            return self.lookup.count(cells, self.product.terms, first)
        terms, shape = self.product.terms, self.shape
        if shape.method is Method.WORDS:
            return count_words(cells, terms, shape.unroll)
        if shape.method is Method.CARRY_SAVE and len(terms) == 1:
            return count_carry_save(cells, terms, shape.chunk)
        # Of CARRY_SAVE rare paths too: small code rather than fast code.
        return count_bytes(cells, terms, shape.unroll)
