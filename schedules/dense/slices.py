"""The loop nest of a dense layer on Neon by tables: sums of 128 columns as planes of bits.

Counting takes three instructions for 128 bits, whatever is done. Here a lane is a column: a vector
holds one bit of numbers of 128 columns, and seven features of a token are one look-up in a table
of all their patterns ("Four Russians"). Its numbers of 0 to 7 are added as planes of bits, which
takes three instructions for each plane that goes away: 62 a word of 32 features, where counting
takes 104. Tables are made when a block of columns begins; all tokens of a part pay for them.

Tables of so many words are used at a time as stay in L2; meanwhile sums of all tokens
wait in memory. A sum begins where the epilogue wants it, and equal bits are counted, so that
thresholds are one comparison, of planes of bits too, and its result is packed already.

Parts share blocks of columns and tiles of four tokens, block by block, so that most of them make
the tables of few blocks.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.bit_sums import LANES, BitSums, adding, kept
from gsb_tvm.schedules.dense.epilogue import Block
from gsb_tvm.schedules.dense.formula import Base, Product
from gsb_tvm.schedules.dense.operands import Plane, column_base
from gsb_tvm.schedules.dense.parameters import Parameters
from gsb_tvm.schedules.dense.slice_tables import STEP, SUB_BLOCKS, TRAILS, Tables, find_parities
from gsb_tvm.schedules.dense.slices_epilogue import SlicesEpilogue
from gsb_tvm.schedules.dense.tiles import PAIR_ROWS, SLICE_COLUMNS
from gsb_tvm.schedules.neon_walk import unknown, walking
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.vector import bind, load, local, splat, store, workspace

Expr = Any
Buffer = Any


def prepare(spec: Dense, activation: Buffer) -> Buffer:
    """A phase that writes each word beside its parities: (batch, tokens, words, 2) uint32."""
    batch, words, tokens = spec.rows.packed_shape
    out = workspace((batch, tokens, words, 2), "uint32")
    with phase() as share:
        first, last = share.span(-(-spec.rows.tokens // LANES))
        with T.serial(0, batch) as b, T.serial(first, last) as quad, T.serial(0, words) as word:
            token = bind(quad * LANES)
            bits = kept(load(activation, b, word, token, lanes=LANES))
            parities = find_parities(bits)
            for i in range(LANES):
                both = T.Shuffle([bits, parities], [i, LANES + i])
                store(out, both, b, token + i, word, 0, lanes=2)
    return out


class Nest:
    """Writes a part's loops."""

    def __init__(
        self,
        spec: Dense,
        named: dict[str, Buffer],
        product: Product,
        finish: SlicesEpilogue,
        share: Share,
        prepared: Buffer,
        chosen: Parameters,
    ) -> None:
        assert product.is_one_count
        assert chosen.chunk is not None
        self.chunk = chosen.chunk
        self.spec, self.product, self.finish = spec, product, finish
        assert spec.rows.packed_shape[1] >= STEP
        self.weight = named["weight"]
        self.prepared = prepared
        self.words = spec.rows.packed_shape[1]
        self.tiles = -(-spec.rows.tokens // PAIR_ROWS)
        blocks = spec.computed_columns // SLICE_COLUMNS
        self.first, self.last = share.span(blocks * self.tiles)
        self.tables = Tables(min(self.chunk, self.words), finish.order)
        self.sums = workspace(((self.tiles + 1) * PAIR_ROWS, finish.planes, LANES), "uint32")

    def write(self) -> None:
        """Emit the part's tokens of the whole layer."""
        first = T.floordiv(self.first, self.tiles)
        last = T.floordiv(self.last + (self.tiles - 1), self.tiles)
        with (
            adding(),
            walking(trails=TRAILS),
            T.serial(0, self.spec.rows.batch) as batch,
            T.serial(first, last) as block,
        ):
            start = bind(T.max(self.first - block * self.tiles, T.int32(0)))
            end = bind(T.min(self.last - block * self.tiles, T.int32(self.tiles)))
            self._block(batch, block, start, end)

    def _block(self, batch: Expr, block: Expr, start: Expr, end: Expr) -> None:
        subs = [self._sub_block(batch, block, i) for i in range(SUB_BLOCKS)]
        self.finish.enter(subs)
        for plane, value in enumerate(self.finish.start()):
            store(self.sums, value, self.tiles * PAIR_ROWS, plane, 0, lanes=LANES)
        tokens = (
            bind(start * PAIR_ROWS),
            bind(T.min(end * PAIR_ROWS, T.int32(self.spec.rows.tokens))),
        )
        full, rest = divmod(self.words, self.chunk)
        if full:
            with T.serial(0, full) as chunk:
                self._chunk(batch, block, bind(chunk * self.chunk), self.chunk, tokens)
        if rest:
            self._chunk(batch, block, T.int32(full * self.chunk), rest, tokens)
        self.finish.tiles(subs, self.sums, start, end)

    def _sub_block(self, batch: Expr, block: Expr, i: int) -> Block:
        first = bind(block * SLICE_COLUMNS + i * WORD_BITS)
        base = self._base(first)
        return Block(batch, first, WORD_BITS, base, self.product.factor)

    def _base(self, first: Expr) -> int | Buffer:
        """What the counts of equal bits are added to: ``dot = base + factor * count``."""
        beside = self.product.base_of_equals(self.spec.rows.features, self.words * WORD_BITS)
        if self.product.base is Base.FEATURES:
            return beside
        tile, plane = T.floordiv(first, WORD_BITS), Plane(self.weight, None)
        base = column_base(plane, self.product, tile, self.words, WORD_BITS, LANES)
        here = T.ramp(0, 1, WORD_BITS)
        T.buffer_store(base, base[here] + splat(beside, WORD_BITS, "int32"), [here])
        return base

    def _chunk(
        self, batch: Expr, block: Expr, first: Expr, count: int, tokens: tuple[Expr, Expr]
    ) -> None:
        """Add what ``count`` words from ``first`` on add to the sums of all tokens."""
        with T.serial(0, count) as word:
            self.tables.build(word, self.weight, block, first + word)
        with T.serial(*tokens) as token:
            begin = T.Select(first == 0, T.int32(self.tiles * PAIR_ROWS), token)
            begin, end = (bind(unknown(T.cast(row, "int64"))) for row in (begin, token))
            sums = [local((LANES,), "uint32") for _ in range(self.finish.planes)]
            for plane, total in enumerate(sums):
                store(total, load(self.sums, begin, plane, 0, lanes=LANES), 0, lanes=LANES)
            full, rest = divmod(count, STEP)
            if full:
                with T.serial(0, full) as step:
                    self._words(sums, batch, token, first, step, STEP)
            self._words(sums, batch, token, first, T.int32(full), rest)
            for plane, total in enumerate(sums):
                store(self.sums, load(total, 0, lanes=LANES), end, plane, 0, lanes=LANES)

    def _words(
        self, sums: list[Buffer], batch: Expr, token: Expr, first: Expr, step: Expr, count: int
    ) -> None:
        total = BitSums([load(plane, 0, lanes=LANES) for plane in sums])
        for k in range(count):
            word = first + step * STEP + k
            bits, parities = (bind(self.prepared[batch, token, word, i]) for i in range(2))
            for number in self.tables.look_up(T.cast(step, "int64"), k, bits, parities):
                total.add(*number)
        for plane, value in zip(sums, total.planes(), strict=True):
            store(plane, value, 0, lanes=LANES)
