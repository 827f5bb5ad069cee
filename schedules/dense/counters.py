"""Counts of differing bits of one register tile, by word popcount or by byte counters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.dense.formula import Term
from gsb_tvm.schedules.vector import bind, local, popcount, splat

Expr = Any
Buffer = Any

BYTE_WORDS = 31  # a byte counter gains at most 8 per word: 31 * 8 <= 255


@dataclass(frozen=True)
class Tile:
    """One register tile: how its operands are read, and where its totals go.

    ``activation(term, word, row)`` is a uint32 scalar, ``weight(term, word, vector)`` a uint32
    vector of ``lanes`` columns. ``total(row, vector)`` is an index into the int32 buffer.
    """

    rows: int
    vectors: int
    lanes: int
    words: int
    activation: Callable[[Term, Expr, int], Expr]
    weight: Callable[[Term, Expr, int], Expr]

    def cells(self) -> Iterable[tuple[int, int]]:
        """Rows and vectors, row by row."""
        return ((i, j) for i in range(self.rows) for j in range(self.vectors))


def slot(tile: Tile, row: int, vector: int, lanes: int) -> list[Expr]:
    """Index of one vector in a counter buffer."""
    return [T.ramp((row * tile.vectors + vector) * lanes, 1, lanes)]


def fill(buffer: Buffer, tile: Tile, lanes: int, dtype: str) -> None:
    """Zero the counters."""
    for i, j in tile.cells():
        T.buffer_store(buffer, splat(0, lanes, dtype), slot(tile, i, j, lanes))


def differences(tile: Tile, term: Term, word: Expr) -> Iterable[tuple[int, int, Expr]]:
    """``a ^ w`` for every cell, in an order that holds one activation at a time."""
    weights = [bind(tile.weight(term, word, j)) for j in range(tile.vectors)]
    for i in range(tile.rows):
        a = bind(T.broadcast(tile.activation(term, word, i), tile.lanes))
        for j, w in enumerate(weights):
            yield i, j, a ^ w


def count_words(tile: Tile, terms: tuple[Term, ...]) -> Callable[[int, int], Expr]:
    """Count with a population count of 32-bit lanes."""
    size = tile.rows * tile.vectors * tile.lanes
    total = local((size,), "int32")
    fill(total, tile, tile.lanes, "int32")
    for term in terms:
        with T.serial(0, tile.words) as k:
            for i, j, bits in differences(tile, term, k):
                at = slot(tile, i, j, tile.lanes)
                count = T.cast(popcount(bits), f"int32x{tile.lanes}")
                sum_ = total[at[0]] + count if term.sign > 0 else total[at[0]] - count
                T.buffer_store(total, sum_, at)
    return lambda i, j: total[slot(tile, i, j, tile.lanes)[0]]


def count_bytes(tile: Tile, terms: tuple[Term, ...]) -> Callable[[int, int], Expr]:
    """Count with a population count of bytes, widened before a byte can overflow."""
    lanes = 4 * tile.lanes
    cells = tile.rows * tile.vectors
    total = local((cells * tile.lanes,), "int32")
    counter = local((cells * lanes,), "uint8")
    fill(total, tile, tile.lanes, "int32")
    for term in terms:
        for first in range(0, tile.words, BYTE_WORDS):
            fill(counter, tile, lanes, "uint8")
            with T.serial(0, min(BYTE_WORDS, tile.words - first)) as k:
                for i, j, bits in differences(tile, term, first + k):
                    at = slot(tile, i, j, lanes)
                    count = popcount(T.reinterpret(f"uint8x{lanes}", bits))
                    T.buffer_store(counter, counter[at[0]] + count, at)
            for i, j in tile.cells():
                at = slot(tile, i, j, tile.lanes)
                count = widened(counter[slot(tile, i, j, lanes)[0]], tile.lanes)
                sum_ = total[at[0]] + count if term.sign > 0 else total[at[0]] - count
                T.buffer_store(total, sum_, at)
    return lambda i, j: total[slot(tile, i, j, tile.lanes)[0]]


def widened(counter: Expr, lanes: int) -> Expr:
    """Sum of the four bytes of each 32-bit lane."""
    pairs = bind(T.reinterpret(f"uint16x{2 * lanes}", counter))
    low = pairs & splat(255, 2 * lanes, "uint16")
    halves = low + (pairs >> splat(8, 2 * lanes, "uint16"))
    quads = bind(T.reinterpret(f"uint32x{lanes}", halves))
    sums = (quads & splat(65535, lanes, "uint32")) + (quads >> splat(16, lanes, "uint32"))
    return T.cast(sums, f"int32x{lanes}")
