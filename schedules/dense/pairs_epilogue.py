"""What becomes of a tile's sums on Neon: four tokens of a packed word at once, or float steps.

Sums are vectors of eight columns of 16 bits, ``sums[row][octet]``. They begin at what the epilogue
says, and rows of 2**14 - 32 features or more do not come here: with them 16 bits hold a bound of a
dot less a base.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.dialect.specs import Dense, Kind, Operand
from gsb_tvm.schedules.dense.epilogue import Block, based, pieces, real_bits, span, typed
from gsb_tvm.schedules.dense.tiles import PAIR_COLUMNS, PAIR_ROWS
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.neon_walk import unknown
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.vector import bind, load, local, put, rounded, splat, store

Expr = Any
Buffer = Any
Sums = Sequence[Sequence[Expr]]

OCTET = 8


class PairsEpilogue(Protocol):
    """Turns a tile's sums into outputs; ``dot = base + factor * count`` of a block.

    ``starts`` holds what the sums begin at, (4 tokens * 32 columns,) uint16: the same for each
    token, but so LLVM loads them, where it would copy them from registers.
    """

    starts: Buffer

    def enter(self, block: Block) -> None:
        """Prepare what every tile of the block needs."""

    def tile(self, block: Block, token: Expr, sums: Sums) -> None:
        """Finish ``len(sums)`` tokens from ``token`` on."""

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Say what the part has found; ``zeros`` is the flag of a plane that may hold zeros."""


class PairsFloats:
    """Float steps in the spec's order, each rounded to float32.

    Sums begin at the base of a dot, or at half of it where each count is two: widening to 32 bits
    doubles for nothing (``sshll``).
    """

    def __init__(self, spec: Dense, named: dict[str, Buffer]) -> None:
        self.spec, self.named = spec, named
        self.starts = local((PAIR_ROWS * PAIR_COLUMNS,), "uint16")
        steps = enumerate(spec.steps)
        tensors = [f"operand{i}" for i, step in steps if step.operand is Operand.TENSOR]
        self.tensors = ["y", *tensors]

    def enter(self, block: Block) -> None:
        """Take the base of each column."""
        if block.factor == 2:
            assert isinstance(block.base, int)
            base = splat((block.base >> 1) % 2**16, PAIR_COLUMNS, "uint16")
        else:
            base = T.cast(based(block, 0, PAIR_COLUMNS), f"uint16x{PAIR_COLUMNS}")
        _repeat(self.starts, base)

    def tile(self, block: Block, token: Expr, sums: Sums) -> None:
        """Write the rows."""
        cuts = pieces(block.columns, OCTET)
        operands = {cut: self._of_columns(block, *cut) for cut in cuts}
        places: dict[str, Expr] = {}

        def at(name: str, column: int, lanes: int) -> list[Expr]:
            return [block.batch, 0, span(places[name] + column, lanes)]

        for row, octets in enumerate(sums):
            first = T.cast((token + row) * self.spec.columns + block.first, "int64")
            # The block's first column in each tensor. Or else LLVM reckons all addresses from one.
            places = {name: bind(unknown(first)) for name in self.tensors}
            for column, lanes in cuts:
                total = _lanes(octets[column // OCTET], column % OCTET, lanes)
                value = self._dot(block, total, lanes)
                for i, step in enumerate(self.spec.steps):
                    operand = operands[column, lanes][i]
                    if step.operand is Operand.TENSOR:
                        operand = self.named[f"operand{i}"][at(f"operand{i}", column, lanes)]
                    value = rounded(value * operand) if step.op == "mul" else value + operand
                T.buffer_store(self.named["y"], value, at("y", column, lanes))

    def _of_columns(self, block: Block, column: int, lanes: int) -> list[Expr]:
        """Operands of all steps, as far as they are the same for all rows."""
        at = span(block.first + column, lanes)

        def operand(i: int) -> Expr:
            buffer, step = self.named[f"operand{i}"], self.spec.steps[i]
            if step.operand is Operand.SCALAR:
                return splat(buffer[0], lanes) if lanes > 1 else buffer[0]
            return bind(buffer[at]) if step.operand is Operand.COLUMN else None

        return [operand(i) for i in range(len(self.spec.steps))]

    def _dot(self, block: Block, total: Expr, lanes: int) -> Expr:
        """The dot of a sum, as float32."""

        def const(value: int) -> Expr:
            return splat(value, lanes, "int32") if lanes > 1 else tirx.const(value, "int32")

        dot = T.cast(T.cast(total, typed("int16", lanes)), typed("int32", lanes))
        if block.factor == 2:
            dot = dot << const(1)
            if self.spec.rows.features % 2:  # half the base was rounded down
                dot = dot + const(1)
        return T.cast(dot, typed("float32", lanes))

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Nothing is left."""


def _lanes(vector: Expr, first: int, lanes: int) -> Expr:
    """``lanes`` of the eight lanes from ``first`` on."""
    return vector if lanes == OCTET else T.Shuffle([vector], list(range(first, first + lanes)))


def _repeat(starts: Buffer, value: Expr) -> None:
    """Let the sums of each token begin at ``value``."""
    value = bind(value)
    for row in range(PAIR_ROWS):
        store(starts, value, row * PAIR_COLUMNS, lanes=PAIR_COLUMNS)


class PairsBits:
    """Thresholds: bit = ((count + shift) as uint16 <= length), where sums begin at the shift.

    From ``lo <= base + factor * count <= hi`` follow ``ceil((lo - base) / factor) <= count`` and
    ``count <= floor((hi - base) / factor)``. Bounds are first clamped to one beyond what a dot can
    be. An empty interval begins where no count comes, at 2**15; a flip takes the complement modulo
    2**16.
    """

    def __init__(self, spec: Dense, named: dict[str, Buffer]) -> None:
        assert spec.thresholds is not None
        assert spec.threshold_bits == 16
        self.spec, self.named, self.rows = spec, named, spec.thresholds.rows
        self.starts = local((PAIR_ROWS * PAIR_COLUMNS,), "uint16")
        self.masked = spec.thresholds.kind is Kind.MASKED
        self.prefixes = ("", "zero_") if self.masked else ("",)
        self.shift = {p: local((WORD_BITS,), "uint16") for p in self.prefixes}
        self.length = {p: local((WORD_BITS,), "uint16") for p in self.prefixes}
        if self.masked:
            self.zeros = local((PAIR_ROWS,), "uint32")
            store(self.zeros, splat(0, PAIR_ROWS, "uint32"), 0, lanes=PAIR_ROWS)

    def enter(self, block: Block) -> None:
        """Move the intervals from dots to counts."""
        for prefix in self.prefixes:
            self._interval(prefix, block)
        _repeat(self.starts, self._of("", self.shift))
        if self.masked:  # of sums that begin at the other shift
            self._store(
                self.shift["zero_"], self._of("zero_", self.shift) - self._of("", self.shift)
            )

    def _interval(self, prefix: str, block: Block) -> None:
        def const(value: int) -> Expr:
            return splat(value, WORD_BITS, "int16")

        first, last = interval(self.spec, self.named, prefix, block)
        first, last = (
            bind(T.Select(last < first, const(-(2**15)), bound)) for bound in (first, last)
        )
        shift, length = const(0) - first, last - first
        if not prefix:
            # ~last = -(last + 1); the complement of n numbers has 2**16 - n.
            flipped = flips(self.named, block)
            shift = T.Select(flipped, ~last, shift)
            length = T.Select(flipped, const(-2) - length, length)
        self._store(self.shift[prefix], T.reinterpret("uint16x32", shift))
        self._store(self.length[prefix], T.reinterpret("uint16x32", length))

    def _store(self, buffer: Buffer, value: Expr) -> None:
        store(buffer, value, 0, lanes=WORD_BITS)

    def _of(self, prefix: str, buffers: dict[str, Buffer]) -> Expr:
        return load(buffers[prefix], 0, lanes=WORD_BITS)

    def tile(self, block: Block, token: Expr, sums: Sums) -> None:
        """Write one word of four tokens; behind the last one stands anything."""
        assert TOKEN_ALIGN % PAIR_ROWS == 0
        word = bind(T.floordiv(block.first, WORD_BITS))
        rows = [T.Shuffle(list(octets), list(range(WORD_BITS))) for octets in sums]
        inside = self._inside(rows, "")
        real = T.broadcast(real_bits(self.rows, word), PAIR_ROWS)
        if not self.masked:
            self._put("out_bits", inside & real, block, word, token)
            return
        zero = self._inside([row + self._of("zero_", self.shift) for row in rows], "zero_")
        nonzero = bind(~zero & real)
        self._put("out_nonzero", nonzero, block, word, token)
        self._put("out_bits", inside & nonzero, block, word, token)
        found = bind(zero & real)
        for row in range(len(rows)):
            put(self.zeros, self.zeros[row] | T.Shuffle([found], [row]), row)

    def _inside(self, rows: list[Expr], prefix: str) -> Expr:
        """Words of four tokens, uint32x4; the last rows are repeated where there are fewer."""
        length = bind(self._of(prefix, self.length))
        masks = [row <= length for row in rows]
        return bind(packed([*masks, *masks[-1:] * (PAIR_ROWS - len(masks))]))

    def _put(self, name: str, value: Expr, block: Block, word: Expr, token: Expr) -> None:
        store(self.named[name], value, block.batch, word, token, lanes=PAIR_ROWS)

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Say whether any value was zero."""
        if zeros is not None:
            found = self.zeros[0]
            for row in range(1, PAIR_ROWS):
                found = found | self.zeros[row]
            zeros.put(share, found)


def interval(spec: Dense, named: dict[str, Buffer], prefix: str, block: Block) -> tuple[Expr, Expr]:
    """First and last count inside thresholds of a word's columns, int16x32; if none, last < first.

    Bounds are first clamped to one beyond what a dot can be.
    """

    def const(value: int) -> Expr:
        return splat(value, WORD_BITS, "int16")

    def clamp(bound: Expr) -> Expr:
        return bind(T.min(T.max(bound, const(-limit)), const(limit)))

    limit, at = spec.rows.features + 1, span(block.first, WORD_BITS)
    low = bind(named[f"{prefix}lo"][at])
    high = _sum_or_most(low, named[f"{prefix}width"][at])
    base = _narrow_base(block)
    first, last = clamp(low) - base, clamp(high) - base
    if block.factor == 2:
        first, last = (first + const(1)) >> const(1), last >> const(1)
    return bind(first), bind(last)


def flips(named: dict[str, Buffer], block: Block) -> Expr:
    """Which of a word's columns flip their bit, a boolean vector."""
    return _set_lanes(named["flip"][T.floordiv(block.first, WORD_BITS)])


def _sum_or_most(low: Expr, width: Expr) -> Expr:
    """``low + width``, int16 and uint16 of a word's columns, or the largest int16 beyond it."""
    wide, middle = f"uint16x{WORD_BITS}", splat(2**15, WORD_BITS, "uint16")
    above = T.reinterpret(wide, low) ^ middle
    total = tirx.call_llvm_pure_intrin(wide, "llvm.uadd.sat", above, width)
    return T.reinterpret(f"int16x{WORD_BITS}", total ^ middle)


def _narrow_base(block: Block) -> Expr:
    """The base of a word's columns as int16."""
    if isinstance(block.base, int):
        return splat(block.base, WORD_BITS, "int16")
    return T.cast(based(block, 0, WORD_BITS), f"int16x{WORD_BITS}")


def _set_lanes(word: Expr) -> Expr:
    """Which bits of a word are set, a boolean vector."""
    half = WORD_BITS // 2
    halves = [T.cast(word, "uint16"), T.cast(word >> T.uint32(half), "uint16")]
    spread = T.Shuffle([T.broadcast(bits, half) for bits in halves], list(range(WORD_BITS)))
    place = T.cast(T.ramp(0, 1, WORD_BITS) & splat(half - 1, WORD_BITS, "int32"), "uint16x32")
    return (spread & (splat(1, WORD_BITS, "uint16") << place)) != splat(0, WORD_BITS, "uint16")


def pairs_epilogue(spec: Dense, named: dict[str, Buffer]) -> PairsEpilogue:
    """The epilogue of ``spec``."""
    return PairsBits(spec, named) if spec.thresholds is not None else PairsFloats(spec, named)
