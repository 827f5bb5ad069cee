"""Walking along a row of keys, one packed word at a time."""

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import tiles

HALF = TOKEN_ALIGN
LOWEST = -3.0e38  # below every value


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

    def existing(self, value: v.Expr, other: float, dtype: str = "float32") -> v.Expr:
        """``value`` with ``other`` in the lanes beyond the last key."""
        if self.keys == self.lanes:
            return value
        exists = T.ramp(0, 1, self.lanes) < v.splat(self.keys, self.lanes, "int32")
        return T.Select(exists, value, v.splat(tirx.const(other, dtype), self.lanes))


def for_pieces(tokens: int, straight: int, emit: Callable[[Piece], None]) -> None:
    """Emit code for every piece of a row.

    Rows of up to ``straight`` words are straight code, others a loop that takes so many at a time.
    """
    whole, tail = tokens // WORD_BITS, tiles.tail(tokens)
    steps = whole // straight if whole > straight else 0
    if steps:
        with T.serial(steps) as step:
            for i in range(straight):
                emit(Piece(step * straight + i, WORD_BITS, WORD_BITS))
    for word in range(steps * straight, whole):
        emit(Piece(word, WORD_BITS, WORD_BITS))
    if tail is not None:
        emit(Piece(whole, tail.lanes, tail.keys))


class Accumulator:
    """Two vectors of 16 lanes that combine the halves of every piece."""

    def __init__(
        self, start: float, combine: Callable[[v.Expr, v.Expr], v.Expr], dtype: str = "float32"
    ) -> None:
        self.combine = combine
        self.halves = [v.local((HALF,), dtype) for _ in range(2)]
        for half in self.halves:
            v.store(half, v.splat(tirx.const(start, dtype), HALF), 0, lanes=HALF)

    def take(self, value: v.Expr, lanes: int) -> None:
        """Combine a piece's value; must be bound."""
        for i, part in enumerate([value] if lanes == HALF else v.halves(value, lanes)):
            self.take_half(i, part)

    def take_half(self, i: int, part: v.Expr) -> None:
        """Combine 16 lanes into accumulator ``i``."""
        half = self.halves[i]
        v.store(half, self.combine(v.load(half, 0, lanes=HALF), part), 0, lanes=HALF)

    def total(self) -> v.Expr:
        """All lanes combined into a scalar."""
        low, high = (v.load(half, 0, lanes=HALF) for half in self.halves)
        return v.bind(v.reduce(self.combine(low, high), HALF, self.combine))
