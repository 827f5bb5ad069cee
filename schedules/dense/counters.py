"""Counts of differing bits of one register tile, by word popcount or by byte counters."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.counting import BYTE_WORDS
from gsb_tvm.schedules.dense.formula import Term
from gsb_tvm.schedules.vector import bind, local, popcount, splat

Expr = Any
Buffer = Any


@dataclass(frozen=True)
class Tile:
    """One register tile, and how its operands are read.

    ``activation(term, word, row)`` is a uint32 scalar, ``weight(term, word, vector)`` a uint32
    vector of ``lanes`` columns.
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


def repeat(extent: int, size: int, body: Callable[[Expr, int], None]) -> None:
    """Cut ``extent`` into pieces: ``body(start, size)`` in a loop, then once for what is left."""
    full, rest = divmod(extent, size)
    if full == 1:
        body(0, size)
    elif full:
        with T.serial(0, full) as i:
            body(bind(i * size), size)
    if rest:
        body(full * size, rest)


def each(extent: int, unroll: int, body: Callable[[Expr], None]) -> None:
    """``body(i)`` for every i below ``extent``, ``unroll`` of them in a turn of the loop."""
    if unroll == 1:
        with T.serial(0, extent) as i:
            body(i)
        return

    def turn(first: Expr, count: int) -> None:
        for i in range(count):
            body(first + i)

    repeat(extent, unroll, turn)


class Cells:
    """One vector for each cell of a tile; a buffer each, so that all of them become registers."""

    def __init__(self, tile: Tile, lanes: int, dtype: str) -> None:
        self.tile, self.lanes, self.dtype = tile, lanes, dtype
        self.buffers = {cell: local((lanes,), dtype) for cell in tile.cells()}

    def __getitem__(self, cell: tuple[int, int]) -> Expr:
        return self.buffers[cell][T.ramp(0, 1, self.lanes)]

    def __setitem__(self, cell: tuple[int, int], value: Expr) -> None:
        T.buffer_store(self.buffers[cell], value, [T.ramp(0, 1, self.lanes)])

    def items(self) -> Iterable[tuple[tuple[int, int], Expr]]:
        """Cells and their values."""
        return ((cell, self[cell]) for cell in self.tile.cells())

    def clear(self) -> None:
        """Set every cell to zero."""
        for cell in self.tile.cells():
            self[cell] = splat(0, self.lanes, self.dtype)

    def add(self, cell: tuple[int, int], value: Expr, sign: int = 1) -> None:
        """Add ``value`` to a cell, or subtract it."""
        self[cell] = self[cell] + value if sign > 0 else self[cell] - value


def differences(tile: Tile, term: Term, word: Expr) -> Iterable[tuple[tuple[int, int], Expr]]:
    """``a ^ w`` for every cell, in an order that holds one activation at a time."""
    weights = [bind(tile.weight(term, word, j)) for j in range(tile.vectors)]
    for i in range(tile.rows):
        a = bind(T.broadcast(tile.activation(term, word, i), tile.lanes))
        for j, w in enumerate(weights):
            yield (i, j), a ^ w


def count_words(tile: Tile, terms: tuple[Term, ...], unroll: int) -> Cells:
    """Count with a population count of 32-bit lanes."""
    total = Cells(tile, tile.lanes, "int32")
    total.clear()
    for term in terms:

        def add_word(k: Expr, term: Term = term) -> None:
            for cell, bits in differences(tile, term, k):
                total.add(cell, T.cast(popcount(bits), f"int32x{tile.lanes}"), term.sign)

        each(tile.words, unroll, add_word)
    return total


def count_bytes(tile: Tile, terms: tuple[Term, ...], unroll: int) -> Cells:
    """Count with a population count of bytes, widened before a byte can overflow."""
    lanes = 4 * tile.lanes
    total, counter = Cells(tile, tile.lanes, "int32"), Cells(tile, lanes, "uint8")
    total.clear()
    for term in terms:

        def add_words(first: Expr, words: int, term: Term = term) -> None:
            def add_word(k: Expr) -> None:
                for cell, bits in differences(tile, term, first + k):
                    counter.add(cell, popcount(T.reinterpret(f"uint8x{lanes}", bits)))

            counter.clear()
            each(words, unroll, add_word)
            for cell in tile.cells():
                total.add(cell, widened(counter[cell], tile.lanes), term.sign)

        repeat(tile.words, BYTE_WORDS, add_words)
    return total


def widened(counter: Expr, lanes: int) -> Expr:
    """Sum of the four bytes of each 32-bit lane."""
    pairs = bind(T.reinterpret(f"uint16x{2 * lanes}", counter))
    low = pairs & splat(255, 2 * lanes, "uint16")
    halves = low + (pairs >> splat(8, 2 * lanes, "uint16"))
    quads = bind(T.reinterpret(f"uint32x{lanes}", halves))
    sums = (quads & splat(65535, lanes, "uint32")) + (quads >> splat(16, lanes, "uint32"))
    return T.cast(sums, f"int32x{lanes}")
