"""What becomes of sums in planes of bits: compared as they are, or made numbers for float steps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.bit_squares import exchange, turned
from gsb_tvm.schedules.dense.bit_sums import LANES, PLANE, kept, opaque, select
from gsb_tvm.schedules.dense.epilogue import Block, real_bits
from gsb_tvm.schedules.dense.pairs_epilogue import OCTET, PairsFloats, flips, interval
from gsb_tvm.schedules.dense.slice_tables import SUB_BLOCKS, Order
from gsb_tvm.schedules.dense.tiles import PAIR_COLUMNS, PAIR_ROWS, SLICE_COLUMNS
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.neon_walk import unknown
from gsb_tvm.schedules.vector import bind, load, local, splat, store

Expr = Any
Buffer = Any


class SlicesEpilogue(Protocol):
    """Turns sums into outputs; ``dot = base + factor * count`` of each of four blocks."""

    order: Order  # of columns in a plane
    planes: int  # of a sum

    def enter(self, blocks: Sequence[Block]) -> None:
        """Prepare what every token needs."""

    def start(self) -> list[Expr]:
        """What sums begin at."""

    def tiles(self, blocks: Sequence[Block], sums: Buffer, first: Expr, last: Expr) -> None:
        """Finish tiles of four tokens, whose sums are (tokens, planes, lanes) uint32."""


class SlicesBits:
    """Thresholds: bit = ((count + shift) <= length) modulo 2**planes, where sums begin at shift.

    Intervals are moved to counts, as in :class:`PairsBits`, and cut to what counts can be, 0 to all
    bits of a row. An empty one begins where no count comes, at 2**planes - 1; a flip takes the
    complement modulo 2**planes.
    """

    order = Order.WORDS

    def __init__(self, spec: Dense, named: dict[str, Buffer]) -> None:
        assert spec.thresholds is not None
        self.spec, self.named, self.rows = spec, named, spec.thresholds.rows
        self.most = spec.rows.packed_shape[1] * WORD_BITS
        self.planes = (self.most + 1).bit_length()  # one number must be out of reach
        self.never = 2**self.planes - 1
        self.shift, self.length = (local((self.planes, LANES), "uint32") for _ in range(2))

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

    def start(self) -> list[Expr]:
        """The shift."""
        return [load(self.shift, plane, 0, lanes=LANES) for plane in range(self.planes)]

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
    """Float steps in the spec's order, by those of pairs.

    Sums begin where those of pairs do, and columns stand in the order of numbers.
    """

    order = Order.NUMBERS

    def __init__(self, spec: Dense, named: dict[str, Buffer], factor: int) -> None:
        self.spec = spec
        half = -(-spec.rows.features // factor)
        self.planes = max(half.bit_length() + 1, 8)  # the last one is the sign
        self.finish = PairsFloats(spec, named)
        self.starts = local((self.planes, LANES), "uint32")
        self.found = local((PAIR_ROWS * SLICE_COLUMNS,), "uint16")

    def enter(self, blocks: Sequence[Block]) -> None:
        """Take the base of each column."""
        octets = []
        for block in blocks:
            self.finish.enter(block)
            octets += [
                kept(load(self.finish.starts, i, lanes=OCTET))
                for i in range(0, PAIR_COLUMNS, OCTET)
            ]
        for plane, value in enumerate(planes(octets, self.planes)):
            store(self.starts, value, plane, 0, lanes=LANES)

    def start(self) -> list[Expr]:
        """The base, or half of it."""
        return [load(self.starts, plane, 0, lanes=LANES) for plane in range(self.planes)]

    def tiles(self, blocks: Sequence[Block], sums: Buffer, first: Expr, last: Expr) -> None:
        """Write rows of four tokens, 32 columns after another."""
        full, rest = divmod(self.spec.rows.tokens, PAIR_ROWS)
        with T.serial(first, T.min(last, T.int32(full)) if rest else last) as tile:
            self._tile(blocks[0], sums, bind(tile * PAIR_ROWS), PAIR_ROWS)
        if rest:
            with T.If(T.And(last == full + 1, first < last)), T.Then():
                self._tile(blocks[0], sums, T.int32(full * PAIR_ROWS), rest)

    def _tile(self, block: Block, sums: Buffer, token: Expr, rows: int) -> None:
        with T.serial(0, rows) as row:
            at = bind(unknown(T.cast(token + row, "int64")))
            found = numbers([load(sums, at, p, 0, lanes=LANES) for p in range(self.planes)])
            for i, octet in enumerate(found):
                store(self.found, octet, row * SLICE_COLUMNS + i * OCTET, lanes=OCTET)
        with T.serial(0, SUB_BLOCKS) as sub:
            here = replace(block, first=bind(block.first + sub * PAIR_COLUMNS))
            places = [sub * PAIR_COLUMNS + i for i in range(0, PAIR_COLUMNS, OCTET)]
            octets = [
                [bind(load(self.found, row * SLICE_COLUMNS + at, lanes=OCTET)) for at in places]
                for row in range(rows)
            ]
            self.finish.tile(here, token, octets)


def numbers(planes: Sequence[Expr]) -> list[Expr]:
    """128 numbers of 8 to 16 planes in :attr:`Order.NUMBERS`, the last one their sign.

    Returns
    -------
    list of Expr
        16 vectors uint16x8, columns in order.
    """
    low, high = _bytes(planes[:8]), _high_bytes(planes[7:])
    halves = ([x for i in range(8 * half, 8 * half + 8) for x in (i, 16 + i)] for half in range(2))
    return [
        kept(T.reinterpret("uint16x8", T.Shuffle([a, b], order)))
        for order in halves
        for a, b in zip(low, high, strict=True)
    ]


def planes(octets: Sequence[Expr], count: int) -> list[Expr]:
    """The lowest ``count`` planes of what :func:`numbers` makes: its inverse."""
    rows = [kept(T.reinterpret("uint8x16", octet)) for octet in octets]
    parts = []
    for part in range(2):
        order = list(range(part, 32, 2))
        both = zip(rows[:8], rows[8:], strict=True)
        parts += _bytes([kept(T.Shuffle([a, b], order)) for a, b in both])
    return [kept(T.reinterpret(PLANE, part)) for part in parts[:count]]


def _high_bytes(planes: Sequence[Expr]) -> list[Expr]:
    """The higher bytes of numbers, of which ``planes`` are bit 7 and all above it."""
    if len(planes) > 2:
        return _bytes([*planes[1:], *[planes[-1]] * (9 - len(planes))])
    sign = kept(T.reinterpret("int8x16", planes[-1]))
    return [
        kept(T.reinterpret("uint8x16", (sign << splat(7 - j, 16, "int8")) >> splat(7, 16, "int8")))
        for j in range(8)
    ]


def _bytes(planes: Sequence[Expr]) -> list[Expr]:
    """Eight planes of bits as bytes, and back: bit j of byte i of vector p is bit p of vector j."""
    rows = [kept(T.reinterpret("uint8x16", plane)) for plane in planes]
    for distance in (4, 2, 1):
        exchange(rows, range(8), distance)
    return rows


def slices_epilogue(spec: Dense, named: dict[str, Buffer], factor: int) -> SlicesEpilogue:
    """The epilogue of ``spec``."""
    if spec.thresholds is not None:
        return SlicesBits(spec, named)
    return SlicesFloats(spec, named, factor)
