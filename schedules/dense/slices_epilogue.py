"""What becomes of sums in planes of bits: compared as they are, or made numbers for float steps."""

from collections.abc import Sequence
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.bit_sums import LANES, kept, opaque, select
from gsb_tvm.schedules.dense.epilogue import Block, real_bits
from gsb_tvm.schedules.dense.pairs_epilogue import PairsFloats, flips, interval
from gsb_tvm.schedules.dense.slice_tables import SUB_BLOCKS, turned
from gsb_tvm.schedules.dense.tiles import PAIR_ROWS
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.vector import bind, load, local, splat, store

Expr = Any
Buffer = Any


class SlicesEpilogue(Protocol):
    """Turns sums into outputs; ``dot = base + factor * count`` of each of four blocks."""

    def enter(self, blocks: Sequence[Block]) -> None:
        """Prepare what every token needs."""

    def start(self, planes: int) -> list[Expr]:
        """What sums begin at."""

    def tiles(self, blocks: Sequence[Block], sums: Buffer, first: Expr, last: Expr) -> None:
        """Finish tiles of four tokens, whose sums are (tokens, planes, lanes) uint32."""


class SlicesBits:
    """Thresholds: bit = ((count + shift) <= length) modulo 2**planes, where sums begin at shift.

    Intervals are moved to counts, as in :class:`PairsBits`, and cut to what counts can be, 0 to all
    bits of a row. An empty one begins where no count comes, at 2**planes - 1; a flip takes the
    complement modulo 2**planes.
    """

    def __init__(self, spec: Dense, named: dict[str, Buffer], planes: int) -> None:
        assert spec.thresholds is not None
        self.spec, self.named, self.rows = spec, named, spec.thresholds.rows
        self.most = spec.rows.packed_shape[1] * WORD_BITS
        self.never = 2**planes - 1
        assert self.never > self.most
        self.shift, self.length = (local((planes, LANES), "uint32") for _ in range(2))
        self.planes = planes

    def enter(self, blocks: Sequence[Block]) -> None:
        """Move the intervals from dots to counts, and those into planes."""
        both = [self._interval(block) for block in blocks]
        zero = splat(0, WORD_BITS, "uint16")
        with T.serial(0, self.planes) as plane:
            one = T.broadcast(T.uint16(1) << T.cast(plane, "uint16"), WORD_BITS)
            for buffer, numbers in zip(
                (self.shift, self.length), zip(*both, strict=True), strict=True
            ):
                masks = [(number & one) != zero for number in numbers]
                store(buffer, packed(masks), plane, 0, lanes=LANES)

    def _interval(self, block: Block) -> tuple[Expr, Expr]:
        def const(value: int) -> Expr:
            return splat(value, WORD_BITS, "int16")

        first, last = interval(self.spec, self.named, "", block)
        first, last = kept(T.max(first, const(0))), kept(T.min(last, const(self.most)))
        first, last = (
            kept(T.Select(last < first, const(self.never), bound)) for bound in (first, last)
        )
        flipped = flips(self.named, block)
        # ~last = -(last + 1); the complement of n numbers has 2**planes - n.
        shift = T.Select(flipped, ~last, const(0) - first)
        length = T.Select(flipped, const(-2) - (last - first), last - first)
        return kept(T.reinterpret("uint16x32", shift)), kept(T.reinterpret("uint16x32", length))

    def start(self, planes: int) -> list[Expr]:
        """The shift."""
        return [load(self.shift, plane, 0, lanes=LANES) for plane in range(planes)]

    def tiles(self, blocks: Sequence[Block], sums: Buffer, first: Expr, last: Expr) -> None:
        """Write four words of four tokens; behind the last one stands anything."""
        with T.serial(first, last) as tile:
            token = bind(tile * PAIR_ROWS)
            results = [self._inside(sums, token + row) for row in range(PAIR_ROWS)]
            for block, words in zip(blocks, turned(results), strict=True):
                word = bind(T.floordiv(block.first, WORD_BITS))
                real = T.broadcast(real_bits(self.rows, word), PAIR_ROWS)
                at = (block.batch, word, token)
                store(self.named["out_bits"], words & real, *at, lanes=PAIR_ROWS)

    def _inside(self, sums: Buffer, token: Expr) -> Expr:
        """Where counts are at most the length: the highest bit in which they differ decides."""
        inside = T.broadcast(T.uint32(2**32 - 1), LANES)
        for plane in range(self.planes):
            length = bind(load(self.length, plane, 0, lanes=LANES))
            differ = opaque(load(sums, token, plane, 0, lanes=LANES) ^ length)
            inside = select(differ, length, inside)
        return inside


class SlicesFloats:
    """Float steps in the spec's order, by those of four blocks of 32 columns."""

    def __init__(self, spec: Dense, named: dict[str, Buffer], planes: int) -> None:
        self.spec, self.planes = spec, planes
        self.finish = [PairsFloats(spec, named) for _ in range(SUB_BLOCKS)]
        self.counts = local((PAIR_ROWS, SUB_BLOCKS, WORD_BITS), "uint16")

    def enter(self, blocks: Sequence[Block]) -> None:
        """Take the base of each column."""
        for finish, block in zip(self.finish, blocks, strict=True):
            finish.enter(block)

    def start(self, planes: int) -> list[Expr]:
        """Nothing."""
        return [T.broadcast(T.uint32(0), LANES)] * planes

    def tiles(self, blocks: Sequence[Block], sums: Buffer, first: Expr, last: Expr) -> None:
        """Write rows of four tokens, 32 columns after another."""
        full, rest = divmod(self.spec.rows.tokens, PAIR_ROWS)
        with T.serial(first, T.min(last, T.int32(full)) if rest else last) as tile:
            self._tile(blocks, sums, bind(tile * PAIR_ROWS), PAIR_ROWS)
        if rest:
            with T.If(T.And(last == full + 1, first < last)), T.Then():
                self._tile(blocks, sums, T.int32(full * PAIR_ROWS), rest)

    def _tile(self, blocks: Sequence[Block], sums: Buffer, token: Expr, rows: int) -> None:
        with T.serial(0, rows) as row:
            planes = [load(sums, token + row, p, 0, lanes=LANES) for p in range(self.planes)]
            for i, octet in enumerate(numbers(planes)):
                store(self.counts, octet, row, i // 4, i % 4 * 8, lanes=8)
        for i, (finish, block) in enumerate(zip(self.finish, blocks, strict=True)):
            starts = [bind(load(finish.starts, octet * 8, lanes=8)) for octet in range(4)]
            totals = [
                [
                    bind(load(self.counts, row, i, octet * 8, lanes=8) + start)
                    for octet, start in enumerate(starts)
                ]
                for row in range(rows)
            ]
            finish.tile(block, token, totals)


def numbers(planes: Sequence[Expr]) -> list[Expr]:
    """128 numbers of at most 16 planes, as 16 vectors uint16x8, columns in order."""
    low, high = _bytes(planes[:8]), _bytes(planes[8:])
    halves: list[list[Expr]] = [[], []]
    for a, b in zip(low, high, strict=True):
        for half in range(2):
            order = [x for i in range(8 * half, 8 * half + 8) for x in (i, 16 + i)]
            halves[half].append(kept(T.reinterpret("uint16x8", T.Shuffle([a, b], order))))
    return [octet for half in halves for octet in _turned_octets(half)]


def _bytes(planes: Sequence[Expr]) -> list[Expr]:
    """Numbers of at most 8 planes: byte i of vector j is that of column 8 i + j."""
    zero = splat(0, 16, "uint8")
    rows = [kept(T.reinterpret("uint8x16", p)) for p in planes] + [zero] * (8 - len(planes))
    for distance in (4, 2, 1):
        keep = sum(1 << i for i in range(8) if not i & distance)
        mask, shift = (splat(v, 16, "uint8") for v in (keep, distance))
        for i in range(8):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                rows[i] = kept((a & mask) | ((b << shift) & ~mask))
                rows[i + distance] = kept(((a >> shift) & mask) | (b & ~mask))
    return rows


def _turned_octets(rows: list[Expr]) -> list[Expr]:
    """Eight vectors of eight lanes, transposed: three rounds of interleaving."""
    low = [x for i in range(4) for x in (i, 8 + i)]
    high = [x for i in range(4, 8) for x in (i, 8 + i)]
    for _ in range(3):
        rows = [
            kept(T.Shuffle([rows[i], rows[i + 4]], order))
            for i in range(4)
            for order in (low, high)
        ]
    return rows


def slices_epilogue(spec: Dense, named: dict[str, Buffer], planes: int) -> SlicesEpilogue:
    """The epilogue of ``spec``."""
    how = SlicesBits if spec.thresholds is not None else SlicesFloats
    return how(spec, named, planes)
