"""What becomes of a tile's counts on Neon: four tokens of a packed word at once, or float steps.

Counts are vectors of eight columns of 16 bits, ``counts[row][octet]``. A row of 2**14 features or
more does not come here.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.dialect.specs import Dense, Kind, Operand
from gsb_tvm.schedules.dense.epilogue import Block, based, pieces, real_bits, span, typed
from gsb_tvm.schedules.dense.tiles import PAIR_ROWS
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.vector import bind, load, local, rounded, splat, store

Expr = Any
Buffer = Any
Counts = Sequence[Sequence[Expr]]

OCTET = 8


class PairsEpilogue(Protocol):
    """Turns a tile's counts into outputs."""

    def ragged_rows(self, tokens: int) -> int:
        """Rows of a last tile that must be cut; 0 where every tile is whole."""

    def enter(self, block: Block) -> None:
        """Prepare what every tile of the block needs."""

    def tile(self, block: Block, token: Expr, counts: Counts) -> None:
        """Finish ``len(counts)`` tokens from ``token`` on."""

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Say what the part has found; ``zeros`` is the flag of a plane that may hold zeros."""


class PairsFloats:
    """Float steps in the spec's order, each rounded to float32."""

    def __init__(self, spec: Dense, named: dict[str, Buffer]) -> None:
        self.spec, self.named = spec, named

    def ragged_rows(self, tokens: int) -> int:
        """Rows behind the last token are not written."""
        return tokens % PAIR_ROWS

    def enter(self, block: Block) -> None:
        """Nothing to prepare."""

    def tile(self, block: Block, token: Expr, counts: Counts) -> None:
        """Write the rows, eight columns of all of them after another."""
        for column, lanes in pieces(block.columns, OCTET):
            at = span(block.first + column, lanes)
            operands = [self._of_columns(i, at, lanes) for i in range(len(self.spec.steps))]
            for row, octets in enumerate(counts):
                count = _lanes(octets[column // OCTET], column % OCTET, lanes)
                value = self._dot(block, column, count, lanes)
                place = [block.batch, token + row, at]
                for i, step in enumerate(self.spec.steps):
                    operand = operands[i]
                    if step.operand is Operand.TENSOR:
                        operand = self.named[f"operand{i}"][place]
                    value = rounded(value * operand) if step.op == "mul" else value + operand
                T.buffer_store(self.named["y"], value, place)

    def _of_columns(self, i: int, at: Expr, lanes: int) -> Expr:
        """The operand of a step that is the same for all rows."""
        buffer, step = self.named[f"operand{i}"], self.spec.steps[i]
        if step.operand is Operand.SCALAR:
            return splat(buffer[0], lanes) if lanes > 1 else buffer[0]
        return bind(buffer[at]) if step.operand is Operand.COLUMN else None

    def _dot(self, block: Block, column: int, count: Expr, lanes: int) -> Expr:
        """float32(base - factor * count); widening to 32 bits doubles for nothing (``sshll``)."""
        narrow, wide = typed("int16", lanes), typed("int32", lanes)
        count = T.cast(count, narrow)
        if block.factor == 1:
            base = T.cast(based(block, column, lanes), narrow)
            return T.cast(T.cast(base - count, wide), typed("float32", lanes))
        assert isinstance(block.base, int)
        half, odd = divmod(block.base, 2)

        def const(value: int, dtype: str) -> Expr:
            return splat(value, lanes, dtype) if lanes > 1 else tirx.const(value, dtype)

        double = T.cast(const(half, "int16") - count, wide) << const(1, "int32")
        return T.cast(double + const(odd, "int32") if odd else double, typed("float32", lanes))

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Nothing is left."""


def _lanes(vector: Expr, first: int, lanes: int) -> Expr:
    """``lanes`` of the eight lanes from ``first`` on."""
    return vector if lanes == OCTET else T.Shuffle([vector], list(range(first, first + lanes)))


class PairsBits:
    """Thresholds on counts of 16 bits: bit = ((count + shift) as uint16 <= length).

    From ``lo <= base - factor * count <= hi`` follow ``ceil((base - hi) / factor) <= count`` and
    ``count <= floor((base - lo) / factor)``. Bounds are first clamped to one beyond what a dot can
    be. An empty interval begins where no count comes, at 2**15; a flip takes the complement
    modulo 2**16.
    """

    def __init__(self, spec: Dense, named: dict[str, Buffer]) -> None:
        assert spec.thresholds is not None
        assert spec.threshold_bits == 16
        self.named, self.rows = named, spec.thresholds.rows
        self.limit = spec.rows.features + 1
        self.masked = spec.thresholds.kind is Kind.MASKED
        self.prefixes = ("", "zero_") if self.masked else ("",)
        self.shift = {p: local((WORD_BITS,), "uint16") for p in self.prefixes}
        self.length = {p: local((WORD_BITS,), "uint16") for p in self.prefixes}
        if self.masked:
            self.zeros = local((PAIR_ROWS,), "uint32")
            store(self.zeros, splat(0, PAIR_ROWS, "uint32"), 0, lanes=PAIR_ROWS)

    def ragged_rows(self, tokens: int) -> int:
        """Tokens are padded to more than a tile, and what stands there is anything."""
        assert TOKEN_ALIGN % PAIR_ROWS == 0
        return 0

    def enter(self, block: Block) -> None:
        """Move the intervals from dots to counts."""
        for prefix in self.prefixes:
            self._interval(prefix, block)

    def _interval(self, prefix: str, block: Block) -> None:
        def const(value: int) -> Expr:
            return splat(value, WORD_BITS, "int32")

        def clamp(bound: Expr) -> Expr:
            return bind(T.min(T.max(bound, const(-self.limit)), const(self.limit)))

        wide, at = f"int32x{WORD_BITS}", span(block.first, WORD_BITS)
        low = bind(T.cast(self.named[f"{prefix}lo"][at], wide))
        high = low + T.cast(self.named[f"{prefix}width"][at], wide)
        base = based(block, 0, WORD_BITS)
        first, last = base - clamp(high), base - clamp(low)
        if block.factor == 2:
            first, last = (first + const(1)) >> const(1), last >> const(1)
        first, last = bind(first), bind(last)
        first, last = (bind(T.Select(last < first, const(2**15), bound)) for bound in (first, last))
        shift, length = const(0) - first, last - first
        if not prefix:
            word = self.named["flip"][T.floordiv(block.first, WORD_BITS)]
            places = splat(1, WORD_BITS, "uint32") << T.cast(T.ramp(0, 1, WORD_BITS), "uint32x32")
            flipped = (T.broadcast(word, WORD_BITS) & places) != splat(0, WORD_BITS, "uint32")
            # ~last = -(last + 1); the complement of n numbers has 2**16 - n.
            shift = T.Select(flipped, ~last, shift)
            length = T.Select(flipped, const(-2) - length, length)
        for buffer, value in ((self.shift, shift), (self.length, length)):
            store(buffer[prefix], T.cast(value, "uint16x32"), 0, lanes=WORD_BITS)

    def tile(self, block: Block, token: Expr, counts: Counts) -> None:
        """Write one word of four tokens."""
        word = bind(T.floordiv(block.first, WORD_BITS))
        rows = [T.Shuffle(list(octets), list(range(WORD_BITS))) for octets in counts]
        inside = [self._inside(prefix, rows) for prefix in self.prefixes]
        real = T.broadcast(real_bits(self.rows, word), PAIR_ROWS)
        if not self.masked:
            self._put("out_bits", inside[0] & real, block, word, token)
            return
        nonzero = bind(~inside[1] & real)
        self._put("out_nonzero", nonzero, block, word, token)
        self._put("out_bits", inside[0] & nonzero, block, word, token)
        found = load(self.zeros, 0, lanes=PAIR_ROWS) | (inside[1] & real & self._of_tokens(token))
        store(self.zeros, found, 0, lanes=PAIR_ROWS)

    def _inside(self, prefix: str, rows: list[Expr]) -> Expr:
        """Words of the four tokens, uint32x4."""
        shift = bind(load(self.shift[prefix], 0, lanes=WORD_BITS))
        length = bind(load(self.length[prefix], 0, lanes=WORD_BITS))
        return bind(packed([(row + shift) <= length for row in rows]))

    def _put(self, name: str, value: Expr, block: Block, word: Expr, token: Expr) -> None:
        store(self.named[name], value, block.batch, word, token, lanes=PAIR_ROWS)

    def _of_tokens(self, token: Expr) -> Expr:
        """All ones where there is a token, 0 behind the last."""
        behind = T.broadcast(token, PAIR_ROWS) + T.ramp(0, 1, PAIR_ROWS) >= splat(
            self.rows.tokens, PAIR_ROWS, "int32"
        )
        return T.Select(
            behind, splat(0, PAIR_ROWS, "uint32"), splat(2**32 - 1, PAIR_ROWS, "uint32")
        )

    def leave(self, share: Share, zeros: Flag | None) -> None:
        """Say whether any value was zero."""
        if zeros is not None:
            found = self.zeros[0]
            for row in range(1, PAIR_ROWS):
                found = found | self.zeros[row]
            zeros.put(share, found)


def pairs_epilogue(spec: Dense, named: dict[str, Buffer]) -> PairsEpilogue:
    """The epilogue of ``spec``."""
    return PairsBits(spec, named) if spec.thresholds is not None else PairsFloats(spec, named)
