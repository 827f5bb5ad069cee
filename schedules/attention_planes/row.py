"""Walking along a row of keys, one packed word at a time."""

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import tiles

HALF = TOKEN_ALIGN
LOWEST = -3.0e38  # below every value; what lanes beyond the last key hold


@dataclass(frozen=True)
class Piece:
    """Keys ``32 * word`` and following: ``lanes`` of them, of which ``keys`` exist."""

    word: v.Expr
    lanes: int
    keys: int

    @property
    def first(self) -> v.Expr:
        """Index of the first key."""
        return self.word * WORD_BITS

    def existing(self, value: v.Expr) -> v.Expr:
        """``value`` with lanes beyond the last key made the lowest."""
        if self.keys == self.lanes:
            return value
        lane = T.ramp(0, 1, self.lanes)
        return T.Select(
            lane < v.splat(self.keys, self.lanes, "int32"), value, v.splat(LOWEST, self.lanes)
        )


def for_pieces(tokens: int, emit: Callable[[Piece], None]) -> None:
    """Emit code for every piece of a row: short rows unrolled, long ones in a loop."""
    whole, tail = tokens // WORD_BITS, tiles.tail(tokens)
    if whole <= tiles.UNROLLED_WORDS:
        for word in range(whole):
            emit(Piece(word, WORD_BITS, WORD_BITS))
    else:
        with T.serial(whole) as word:
            emit(Piece(word, WORD_BITS, WORD_BITS))
    if tail is not None:
        emit(Piece(whole, tail.lanes, tail.keys))


class Accumulator:
    """Two vectors of 16 lanes that combine the halves of every piece."""

    def __init__(self, start: float, combine: Callable[[v.Expr, v.Expr], v.Expr]) -> None:
        self.combine = combine
        self.halves = [v.local((HALF,), "float32") for _ in range(2)]
        for half in self.halves:
            v.store(half, v.splat(start, HALF), 0, lanes=HALF)

    def take(self, value: v.Expr, lanes: int) -> None:
        """Combine a piece's value; must be bound."""
        parts = [value] if lanes == HALF else v.halves(value, lanes)
        for half, part in zip(self.halves, parts, strict=False):
            v.store(half, self.combine(v.load(half, 0, lanes=HALF), part), 0, lanes=HALF)

    def total(self) -> v.Expr:
        """All lanes combined into a scalar."""
        low, high = (v.load(half, 0, lanes=HALF) for half in self.halves)
        return v.bind(v.reduce(self.combine(low, high), HALF, self.combine))
