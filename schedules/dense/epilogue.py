"""What becomes of the dots of a register tile: float steps and a store, or bits."""

from dataclasses import dataclass
from typing import Any, Protocol

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, Rows, words
from gsb_tvm.dialect.specs import Dense, Kind, Operand
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.vector import bind, bits_of, lanes_of, local, put, rounded, splat

Expr = Any
Buffer = Any


@dataclass(frozen=True)
class Block:
    """Columns whose weights are in L1.

    ``dot = base - factor * count``: ``base`` is a number, or an int32 buffer with one entry per
    column.
    """

    batch: Expr
    first: Expr  # first column
    columns: int
    base: int | Buffer
    factor: int


class Epilogue(Protocol):
    """Turns counts into outputs."""

    def enter(self, block: Block) -> None:
        """Prepare what every row of the block needs."""

    def row(self, block: Block, token: Expr, counts: Buffer) -> None:
        """Finish one token: its counts stand in ``counts``, one per column of the block."""

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Say what the part has found; ``zeros`` is the flag of a plane that may hold zeros."""


NEVER = 2**30  # start of an empty interval: count - NEVER is negative, as unsigned above any length


def span(first: Expr, lanes: int) -> Expr:
    """Index of ``lanes`` neighbours; a plain index for one."""
    return first if lanes == 1 else T.ramp(first, 1, lanes)


def typed(dtype: str, lanes: int) -> str:
    """Name of a vector type; of a scalar for one lane."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def pieces(count: int, lanes: int) -> list[tuple[int, int]]:
    """Cut ``count`` elements into (offset, width) with widths ``lanes`` and smaller powers of 2."""
    out, offset = [], 0
    while offset < count:
        while lanes > count - offset:
            lanes //= 2
        out.append((offset, lanes))
        offset += lanes
    return out


def based(block: Block, offset: int, lanes: int) -> Expr:
    """The base of ``lanes`` columns from ``offset`` on, as int32."""
    if isinstance(block.base, int):
        return T.broadcast(T.int32(block.base), lanes) if lanes > 1 else T.int32(block.base)
    return block.base[span(offset, lanes)]


def real_bits(rows: Rows, word: Expr) -> Expr:
    """Bits of word ``word`` of a row that are not padding."""
    rest = rows.width % WORD_BITS
    if rest == 0:
        return T.uint32(2**WORD_BITS - 1)
    per_group = words(rows.width)
    is_last = T.floormod(word, per_group) == per_group - 1
    return T.Select(is_last, T.uint32(2**rest - 1), T.uint32(2**WORD_BITS - 1))


class Floats:
    """Float steps in the spec's order, each rounded to float32."""

    def __init__(self, spec: Dense, named: dict[str, Buffer], lanes: int) -> None:
        self.spec, self.named, self.lanes = spec, named, lanes

    def enter(self, block: Block) -> None:
        """Nothing to prepare."""

    def row(self, block: Block, token: Expr, counts: Buffer) -> None:
        """Write one row of the block; columns past the last are never touched."""
        for column, lanes in pieces(block.columns, self.lanes):
            value = self._dot(block, column, counts[span(column, lanes)], lanes)
            for i, step in enumerate(self.spec.steps):
                at = span(block.first + column, lanes)
                buffer = self.named[f"operand{i}"]
                if step.operand is Operand.SCALAR:
                    operand = splat(buffer[0], lanes) if lanes > 1 else buffer[0]
                elif step.operand is Operand.COLUMN:
                    operand = buffer[at]
                else:
                    operand = buffer[block.batch, token, at]
                value = rounded(value * operand) if step.op == "mul" else value + operand
            at = span(block.first + column, lanes)
            T.buffer_store(self.named["y"], value, [block.batch, token, at])

    def _dot(self, block: Block, column: int, count: Expr, lanes: int) -> Expr:
        """float32(base - factor * count): exact in any order below 2**24."""
        to_float = typed("float32", lanes)
        if abs(block.factor) == 1 or self.spec.rows.features >= 2**24:
            count = count * T.cast(T.int32(block.factor), typed("int32", lanes))
            return T.cast(based(block, column, lanes) - count, to_float)
        factor = T.cast(T.float32(block.factor), to_float)
        return T.cast(based(block, column, lanes), to_float) - T.cast(count, to_float) * factor

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Nothing is left."""


class Bits:
    """Thresholds: bit = ((dot - lo) as uint32 <= width) != flip.

    Once per block the interval of dots becomes one of counts, so that an addition and an unsigned
    comparison are left: from ``lo <= base - factor * count <= hi`` follow ``ceil((base - hi) /
    factor) <= count`` and ``count <= floor((base - lo) / factor)``. An interval that passes 2**32
    is replaced by its complement, with the flip inverted. Bounds are first clamped to one beyond
    what a dot can be, so nothing overflows. A flip becomes the complement modulo 2**32: from
    last + 1, 2**32 - (last - first) - 1 numbers.
    """

    def __init__(self, spec: Dense, named: dict[str, Buffer]) -> None:
        assert spec.thresholds is not None
        self.named, self.rows = named, spec.thresholds.rows
        self.limit = spec.rows.features + 1
        self.masked = spec.thresholds.kind is Kind.MASKED
        self.prefixes = ("", "zero_") if self.masked else ("",)
        size = spec.column_tile
        # Minus the first count inside, to be added: an addition takes a count from memory.
        self.shift = {p: local((size,), "int32") for p in self.prefixes}
        self.length = {p: local((size,), "uint32") for p in self.prefixes}
        if self.masked:
            self.zeros = local((1,), "uint32")
            put(self.zeros, T.uint32(0), 0)

    def enter(self, block: Block) -> None:
        """Move the intervals from dots to counts."""
        with T.serial(0, block.columns // WORD_BITS) as word:
            for prefix in self.prefixes:
                self._interval(prefix, block, word)

    def _interval(self, prefix: str, block: Block, word: Expr) -> None:
        def const(value: int, dtype: str = "int64") -> Expr:
            return splat(value, WORD_BITS, dtype)

        def clamp(bound: Expr) -> Expr:
            bound = T.min(T.max(bound, const(-self.limit)), const(self.limit))
            return T.cast(bound, f"int32x{WORD_BITS}")

        here = span(word * WORD_BITS, WORD_BITS)
        at = span(block.first + word * WORD_BITS, WORD_BITS)
        low = T.cast(self.named[f"{prefix}lo"][at], f"int64x{WORD_BITS}")
        high = low + T.cast(self.named[f"{prefix}width"][at], f"int64x{WORD_BITS}")
        wraps = high >= const(2**32 - self.limit)
        most = clamp(T.Select(wraps, low - const(1), high))
        least = clamp(T.Select(wraps, high - const(2**32 - 1), low))
        base = based(block, word * WORD_BITS, WORD_BITS)
        first, last = base - most, base - least
        if block.factor == 2:
            one = const(1, "int32")
            first, last = (first + one) >> one, last >> one
        empty, never = last < first, const(NEVER, "int32")
        first, last = (T.Select(empty, never, bound) for bound in (first, last))
        flip = bits_of(wraps, WORD_BITS)
        if not prefix:
            flip = flip ^ self.named["flip"][T.floordiv(block.first, WORD_BITS) + word]
        flipped, size = bind(lanes_of(flip, WORD_BITS)), bind(last - first)
        shift = T.Select(flipped, ~last, const(0, "int32") - first)  # ~last = -(last + 1)
        length = T.Select(flipped, const(-2, "int32") - size, size)
        T.buffer_store(self.shift[prefix], shift, [here])
        T.buffer_store(self.length[prefix], T.cast(length, f"uint32x{WORD_BITS}"), [here])

    def row(self, block: Block, token: Expr, counts: Buffer) -> None:
        """Write one bit per column of the block."""
        for part in range(block.columns // WORD_BITS):
            word = T.floordiv(block.first, WORD_BITS) + part
            count = bind(counts[span(part * WORD_BITS, WORD_BITS)])
            inside = [self._inside(p, part, count) for p in self.prefixes]
            real = real_bits(self.rows, word)
            if self.masked:
                zero = bind(inside[1] & real)
                nonzero = bind(~inside[1] & real)
                put(self.zeros, self.zeros[0] | zero, 0)
                put(self.named["out_nonzero"], nonzero, block.batch, word, token)
                put(self.named["out_bits"], inside[0] & nonzero, block.batch, word, token)
            else:
                put(self.named["out_bits"], inside[0] & real, block.batch, word, token)

    def _inside(self, prefix: str, part: int, count: Expr) -> Expr:
        at = span(part * WORD_BITS, WORD_BITS)
        offset = T.cast(count + self.shift[prefix][at], f"uint32x{WORD_BITS}")
        return bind(bits_of(offset <= self.length[prefix][at], WORD_BITS))

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Say whether any value was zero."""
        if zeros is not None:
            zeros.put(share, self.zeros[0])


def epilogue(spec: Dense, named: dict[str, Buffer], lanes: int) -> Epilogue:
    """The epilogue of ``spec``; one per part and form of the product."""
    return Bits(spec, named) if spec.thresholds is not None else Floats(spec, named, lanes)
