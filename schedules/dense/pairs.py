"""The loop nest of a dense layer on Neon: bytes counted in pairs, summed in 16 bits.

Counting 128 bits takes three instructions whatever their form: exclusive or, count, add. What
stands beside them decides, so additions do the widening. The counts of two vectors of four columns
are added in pairs of bytes (``addp``), and pairs of those to eight sums of 16 bits (``uadalp``):
two exclusive ors, two counts, two additions. Half as many registers hold a tile's sums, no byte can
overflow, and nothing is left to be widened.

A tile is four tokens times the 32 columns of a block, which are one word of an output plane: 16
sums, four activations, weights that come in pairs, and what is between. Activations are spread
once, each word over the lanes of a vector: six instructions then load what four tokens times eight
vectors need, and none of them takes a vector pipe, where ``dup`` and ``ld1r`` do.

They are inverted as they are spread, so that equal bits are counted, those of the padding too. A
dot product is then a sum that only grows, and its sums begin at what the epilogue wants to be
added: no instruction subtracts from a base or shifts a threshold.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.counters import repeat
from gsb_tvm.schedules.dense.epilogue import Block
from gsb_tvm.schedules.dense.formula import Base, Product
from gsb_tvm.schedules.dense.pairs_epilogue import PairsEpilogue
from gsb_tvm.schedules.dense.parameters import Parameters
from gsb_tvm.schedules.dense.tiles import PAIR_COLUMNS, PAIR_ROWS
from gsb_tvm.schedules.neon import add_pairs, widen_pairs
from gsb_tvm.schedules.neon_walk import Walk, fence, unknown, walking
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import (
    bind,
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

LANES = 4
OCTETS = PAIR_COLUMNS // 8  # of columns, whose sums are one register
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
        chosen: Parameters,
    ) -> None:
        assert product.is_one_count
        assert chosen.unroll is not None
        self.unroll, self.ahead = chosen.unroll, chosen.ahead
        self.spec, self.product, self.finish, self.spread = spec, product, finish, spread
        self.activation, self.weight = named["a_bits"], named["weight"]
        self.words = spec.rows.packed_shape[1]
        self.tiles = -(-spec.rows.tokens // PAIR_ROWS)
        self.first, self.last = share.span(self.tiles)

    def write(self) -> None:
        """Emit the part's tokens of the whole layer."""
        self.weights, self.activations = Walk(), Walk()
        with walking(Sums.fences()), T.serial(0, self.spec.rows.batch) as batch:
            self._spread(batch)
            repeat(
                self.spec.computed_columns,
                PAIR_COLUMNS,
                lambda first, columns: self._block(batch, first, columns),
            )

    def _spread(self, batch: Expr) -> None:
        with T.serial(self.first, self.last) as tile, T.serial(0, self.words) as word:
            for row in range(PAIR_ROWS):
                bits = ~self.activation[batch, word, tile * PAIR_ROWS + row]
                lanes = T.broadcast(bits, LANES)
                store(self.spread, lanes, tile, word, row, 0, lanes=LANES)

    def _block(self, batch: Expr, first: Expr, columns: int) -> None:
        block = Block(batch, first, columns, self._base(first), self.product.factor)
        self.finish.enter(block)
        rest = self.spec.rows.tokens % PAIR_ROWS
        if not rest:
            with T.serial(self.first, self.last) as tile:
                self._tile(block, tile, PAIR_ROWS)
            return
        with T.serial(self.first, T.min(self.last, T.int32(self.tiles - 1))) as tile:
            self._tile(block, tile, PAIR_ROWS)
        with T.If(T.And(self.last == self.tiles, self.first < self.tiles)), T.Then():
            self._tile(block, T.int32(self.tiles - 1), rest)

    def _base(self, first: Expr) -> int | Buffer:
        """What the counts of equal bits are added to: ``dot = base + factor * count``."""
        beside = self.product.base_of_equals(self.spec.rows.features, self.words * WORD_BITS)
        if self.product.base is Base.FEATURES:
            return beside
        base = local((PAIR_COLUMNS,), "int32")
        weight = self.weights.begin(self.weight, T.floordiv(first, PAIR_COLUMNS), 0, 0)
        minus = local((PAIR_COLUMNS,), "uint16")
        store(minus, splat(beside % 2**16, PAIR_COLUMNS, "uint16"), 0, lanes=PAIR_COLUMNS)
        (row,) = Sums(weight, None, 1, minus, 0).count(self.words, self.unroll)
        for octet, value in enumerate(row):
            store(base, T.cast(T.cast(value, "int16x8"), "int32x8"), octet * 8, lanes=8)
        return base

    def _tile(self, block: Block, tile: Expr, rows: int) -> None:
        if self.ahead:
            self._fetch_ahead(block, tile)
        activation = self.activations.begin(self.spread, tile, 0, 0, 0)
        weight = self.weights.begin(self.weight, T.floordiv(block.first, PAIR_COLUMNS), 0, 0)
        # Were it known that all tiles begin alike, LLVM would keep that and copy it: the same, and
        # more, where now pairs are loaded.
        at = T.cast(tile, "int64")
        zero = bind(unknown(at) - at)
        sums = Sums(weight, activation, rows, self.finish.starts, zero)
        self.finish.tile(block, tile * PAIR_ROWS, sums.count(self.words, self.unroll))

    def _fetch_ahead(self, block: Block, tile: Expr) -> None:
        """Ask for a token tile's share of the next block's weights, which lie behind this one's.

        Lines past the end of the weights are asked for in vain, which does no harm.
        """
        each = -(-self.words * PAIR_COLUMNS // LINE_WORDS // self.tiles)
        at = T.floordiv(block.first, PAIR_COLUMNS)
        for i in range(each):
            prefetch(self.weight, at + 1, 0, (tile * each + i) * LINE_WORDS)


class Sums:
    """Set bits of ``activation ^ weight`` for ``rows`` tokens and the columns of block ``tile``.

    ``activation`` begins where the tile's words are, four tokens each; without it its bits are 0.
    ``starts`` holds, from ``first`` on, what the sums begin at, row by row, uint16.
    """

    def __init__(
        self,
        weight: Walk,
        activation: Walk | None,
        rows: int,
        starts: Buffer,
        first: Expr,
    ) -> None:
        self.weight, self.activation, self.rows = weight, activation, rows
        self.starts, self.first = starts, first

    @staticmethod
    def fences() -> list[tuple[int, int]]:
        """Those that it uses: of one or two pointers, and the sums of up to four tokens."""
        heights = range(1, PAIR_ROWS + 1)
        return [(walks, rows + more) for walks in (1, 2) for rows in heights for more in (0, 1)]

    def count(self, words: int, unroll: int) -> list[list[Expr]]:
        """Sums over all words, modulo 2**16: for each row and octet of columns a uint16x8."""
        cells = [(row, octet) for row in range(self.rows) for octet in range(OCTETS)]
        self.sums = {cell: local((8,), "uint16") for cell in cells}
        for row, octet in cells:
            at = self.first + row * PAIR_COLUMNS + octet * 8
            store(self.sums[row, octet], load(self.starts, at, lanes=8), 0, lanes=8)
        repeat(words, unroll, self._words)
        return [
            [load(self.sums[row, octet], 0, lanes=8) for octet in range(OCTETS)]
            for row in range(self.rows)
        ]

    def _words(self, _first: Expr, count: int) -> None:
        for _ in range(count):
            rows = [splat(0, LANES, "uint32")] * self.rows
            if self.activation is not None:
                read = self.activation.four()
                rows = [load(read, row * LANES, lanes=LANES) for row in range(self.rows)]
            for octet in range(0, OCTETS, 2):
                weights = self.weight.four()
                self._octet(octet, rows, weights, 0)
                # One of the next two is enough: a fence for both costs a copy.
                self._fence(octet, [weights[2 * LANES]])
                self._octet(octet + 1, rows, weights, 2 * LANES)
                self._fence(octet + 1, [])

    def _octet(self, octet: int, rows: list[Expr], weights: Buffer, at: int) -> None:
        """Add a word's eight columns, whose weights stand from ``at`` on."""
        pair = [bind(load(weights, at + i * LANES, lanes=LANES)) for i in range(2)]
        for row, bits in enumerate(rows):
            low, high = (popcount(T.reinterpret("uint8x16", bits ^ w)) for w in pair)
            sums = self.sums[row, octet]
            store(sums, load(sums, 0, lanes=8) + widen_pairs(add_pairs(low, high)), 0, lanes=8)

    def _fence(self, octet: int, behind: list[Expr]) -> None:
        walks = [walk for walk in (self.weight, self.activation) if walk is not None]
        sums = [self.sums[row, octet][0] for row in range(self.rows)]
        fence(walks, [*sums, *behind])
