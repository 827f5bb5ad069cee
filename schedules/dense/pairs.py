"""The loop nest of a dense layer on Neon: byte counters of two vectors of columns at once.

Counting 128 bits takes three instructions whatever their form: exclusive or, count, add. What
stands beside them decides. The counts of two vectors are added in pairs of bytes (``addp``) before
they meet a counter, so a counter holds eight columns of two bytes, half as many registers hold a
tile's counters, and one instruction (``uaddlp``) makes eight sums of 16 bits of it. A byte gains at
most 16 a word: it holds 15 words. Longer rows are counted in rounds.

A tile is four tokens times the 32 columns of a block, which are one word of an output plane: 16
counters, four activations, weights that come in pairs, and what is between. Activations are spread
once, each word over the lanes of a vector: four instructions then load what four tokens times eight
vectors need of activations and weights, and none of them takes a vector pipe, where ``dup`` and
``ld1r`` do.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.counters import repeat
from gsb_tvm.schedules.dense.epilogue import Block
from gsb_tvm.schedules.dense.formula import Base, Part, Product
from gsb_tvm.schedules.dense.pairs_epilogue import PairsEpilogue
from gsb_tvm.schedules.dense.tiles import PAIR_COLUMNS, PAIR_ROWS, PAIR_WORDS
from gsb_tvm.schedules.neon import add_pairs, widen_pairs
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import (
    bind,
    hidden,
    load,
    local,
    popcount,
    prefetch,
    splat,
    store,
    workspace,
)

Expr = Any
Buffer = Any

UNROLLED = 2  # words in the loop: of more LLVM makes an order that sends counters to the stack
LANES = 4
OCTETS = PAIR_COLUMNS // 8  # of columns, whose counters are one register
LINE_WORDS = 16  # of a cache line of 64 bytes


def spread_activation(spec: Dense) -> Buffer:
    """Room for the activation of one image: (tiles, words, 4 tokens, 4 lanes) uint32.

    All parts share it, each with tiles of its own.
    """
    tiles = -(-spec.rows.tokens // PAIR_ROWS)
    return workspace((tiles, spec.rows.packed_shape[1], PAIR_ROWS, LANES), "uint32")


class Nest:
    """Writes a part's loops."""

    def __init__(
        self,
        spec: Dense,
        named: dict[str, Buffer],
        product: Product,
        finish: PairsEpilogue,
        share: Share,
        spread: Buffer,
    ) -> None:
        assert [(t.sign, t.activation, t.weight) for t in product.terms] == [
            (1, Part.BITS, Part.BITS)
        ]
        self.spec, self.product, self.finish, self.spread = spec, product, finish, spread
        self.activation, self.weight = named["a_bits"], named["weight"]
        self.words = spec.rows.packed_shape[1]
        self.first, self.last = share.span(-(-spec.rows.tokens // PAIR_ROWS))

    def write(self) -> None:
        """Emit the part's tokens of the whole layer."""
        with T.serial(0, self.spec.rows.batch) as batch:
            self._spread(batch)
            repeat(
                self.spec.computed_columns,
                PAIR_COLUMNS,
                lambda first, columns: self._block(batch, first, columns),
            )

    def _spread(self, batch: Expr) -> None:
        with T.serial(self.first, self.last) as tile, T.serial(0, self.words) as word:
            for row in range(PAIR_ROWS):
                bits = self.activation[batch, word, tile * PAIR_ROWS + row]
                lanes = T.broadcast(bits, LANES)
                store(self.spread, lanes, tile, word, row, 0, lanes=LANES)

    def _block(self, batch: Expr, first: Expr, columns: int) -> None:
        base: int | Buffer = self.spec.rows.features
        if self.product.base is Base.COLUMN:
            base = self._column_base(T.floordiv(first, PAIR_COLUMNS))
        block = Block(batch, first, columns, base, self.product.factor)
        self.finish.enter(block)
        rest = self.finish.ragged_rows(self.spec.rows.tokens)
        tiles = -(-self.spec.rows.tokens // PAIR_ROWS)
        if not rest:
            with T.serial(self.first, self.last) as tile:
                self._tile(block, tile, PAIR_ROWS)
            return
        with T.serial(self.first, T.min(self.last, T.int32(tiles - 1))) as tile:
            self._tile(block, tile, PAIR_ROWS)
        with T.If(T.And(self.last == tiles, self.first < tiles)), T.Then():
            self._tile(block, T.int32(tiles - 1), rest)

    def _tile(self, block: Block, tile: Expr, rows: int) -> None:
        self._fetch_ahead(block, tile)
        # Were it known that every tile reads the same weights, LLVM would keep them: on the stack.
        one = T.cast(tile + 1, "uint32")  # or more: TVM cannot reinterpret a 0
        zero = T.cast(hidden(one), "int64") - T.cast(one, "int64")
        at = bind(T.cast(T.floordiv(block.first, PAIR_COLUMNS), "int64") + zero)

        def activation(word: Expr, row: int) -> Expr:
            return load(self.spread, tile, word, row, 0, lanes=LANES)

        counts = Counters(self.weight, at, rows, activation).count(self.words)
        self.finish.tile(block, tile * PAIR_ROWS, counts)

    def _column_base(self, tile: Expr) -> Buffer:
        """popc(w) of each column of a block, int32."""

        def nothing(word: Expr, row: int) -> Expr:
            return splat(0, LANES, "uint32")

        base = local((PAIR_COLUMNS,), "int32")
        (row,) = Counters(self.weight, tile, 1, nothing).count(self.words)
        for octet, sums in enumerate(row):
            store(base, T.cast(sums, "int32x8"), octet * 8, lanes=8)
        return base

    def _fetch_ahead(self, block: Block, tile: Expr) -> None:
        """Ask for a token tile's share of the next block's weights, which lie behind this one's.

        Lines past the end of the weights are asked for in vain, which does no harm.
        """
        tiles = -(-self.spec.rows.tokens // PAIR_ROWS)
        lines = self.words * PAIR_COLUMNS // LINE_WORDS
        each = -(-lines // tiles)
        at = T.floordiv(block.first, PAIR_COLUMNS)
        for i in range(each):
            prefetch(self.weight, at + 1, 0, (tile * each + i) * LINE_WORDS)


class Counters:
    """Counts of differing bits of a tile of ``rows`` tokens and the columns of a block.

    ``activation(word, row)`` is a word of a token in all lanes, uint32x4.
    """

    def __init__(self, weight: Buffer, tile: Expr, rows: int, activation: Any) -> None:
        self.weight, self.tile, self.rows, self.activation = weight, tile, rows, activation
        self.cells = [(row, octet) for row in range(rows) for octet in range(OCTETS)]
        self.counters = {cell: local((16,), "uint8") for cell in self.cells}

    def count(self, words: int) -> list[list[Expr]]:
        """Counts over all words: for each row and octet of columns a uint16x8."""
        rounds = -(-words // PAIR_WORDS)
        per = -(-words // rounds)
        totals: dict[tuple[int, int], Buffer] = {}
        if rounds > 1:
            totals = {cell: local((8,), "uint16") for cell in self.cells}
            for cell in self.cells:
                store(totals[cell], splat(0, 8, "uint16"), 0, lanes=8)
            with T.serial(0, rounds - 1) as i:
                self._round(bind(i * per), per)
                for cell in self.cells:
                    store(totals[cell], self._sum(cell, totals), 0, lanes=8)
        self._round((rounds - 1) * per, words - (rounds - 1) * per)
        return [
            [bind(self._sum((row, octet), totals)) for octet in range(OCTETS)]
            for row in range(self.rows)
        ]

    def _sum(self, cell: tuple[int, int], totals: dict[tuple[int, int], Buffer]) -> Expr:
        sums = widen_pairs(load(self.counters[cell], 0, lanes=16))
        return load(totals[cell], 0, lanes=8) + sums if totals else sums

    def _round(self, first: Expr, words: int) -> None:
        """Count ``words`` words from ``first`` on; the first of them makes the counters."""
        ahead = (words - 1) % UNROLLED + 1
        for k in range(ahead):
            self._word(first + k, is_first=k == 0)
        if words > ahead:
            with T.serial(0, (words - ahead) // UNROLLED) as i:
                for k in range(UNROLLED):
                    self._word(bind(first + ahead + i * UNROLLED) + k, is_first=False)

    def _word(self, word: Expr, *, is_first: bool) -> None:
        rows = [bind(self.activation(word, row)) for row in range(self.rows)]
        for octet in range(OCTETS):
            weights = [
                bind(load(self.weight, self.tile, word, octet * 8 + half * LANES, lanes=LANES))
                for half in range(2)
            ]
            for row, bits in enumerate(rows):
                low, high = (popcount(T.reinterpret("uint8x16", bits ^ w)) for w in weights)
                counter, pairs = self.counters[row, octet], add_pairs(low, high)
                if not is_first:
                    pairs = load(counter, 0, lanes=16) + pairs
                store(counter, pairs, 0, lanes=16)
