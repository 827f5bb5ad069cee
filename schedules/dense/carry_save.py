"""Counts by carry-save addition of whole words, so that few bytes need a population count.

A full adder takes three vectors of weight w and gives one of weight w and one of weight 2 w (Harley
and Seal; Warren, Hacker's Delight, 2nd ed., section 5-1). 15 words leave 4 vectors to count. It
pays where counting and adding bytes takes more instructions than an adder: two with three-input
logic, else five. Of 2**n - 1 words every adder is full.
"""

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.counting import BYTE_WORDS
from gsb_tvm.schedules.dense.counters import Cells, Tile, differences, repeat, widened
from gsb_tvm.schedules.dense.formula import Term
from gsb_tvm.schedules.vector import bind, popcount

Expr = Any


def count_carry_save(tile: Tile, terms: tuple[Term, ...], most: int) -> Cells:
    """Totals of a tile; up to ``most`` words, 31 at most, are added before they are counted."""
    total = Cells(tile, tile.lanes, "int32")
    counter = Cells(tile, 4 * tile.lanes, "uint8")
    total.clear()
    chunks = -(-tile.words // most)
    chunk = -(-tile.words // chunks)
    # As many chunks between widenings as a byte can count, in equal parts: less code.
    fit = next(n for n in range(BYTE_WORDS // chunk, 0, -1) if chunks % n == 0)
    per_byte = fit * chunk
    for term in terms:

        def add_words(first: Expr, words: int, term: Term = term) -> None:
            counter.clear()
            repeat(words, chunk, lambda k, n: _add_chunk(tile, term, first + k, n, counter))
            for cell, count in counter.items():
                total.add(cell, widened(count, tile.lanes), term.sign)

        repeat(tile.words, per_byte, add_words)
    return total


def _add_chunk(tile: Tile, term: Term, first: Expr, length: int, counter: Cells) -> None:
    pending: dict[tuple[int, int], list[list[Expr]]] = {cell: [[]] for cell in tile.cells()}
    for k in range(length):
        for cell, bits in differences(tile, term, first + k):
            _push(pending[cell], 0, bind(bits), tile.lanes)
    for cell, levels in pending.items():
        count: Expr = None
        for vectors in reversed(levels):
            count = None if count is None else count + count
            for vector in vectors:
                ones = popcount(T.reinterpret(f"uint8x{4 * tile.lanes}", vector))
                count = bind(ones if count is None else count + ones)
        counter.add(cell, count)


def _push(levels: list[list[Expr]], level: int, vector: Expr, lanes: int) -> None:
    """Add a vector of weight ``2**level``; three of them become a sum and a carry."""
    if level == len(levels):
        levels.append([])
    levels[level].append(vector)
    if len(levels[level]) == 3:
        a, b, c = levels[level]
        total, carry = _full_adder(a, b, c, lanes)
        levels[level] = [total]
        _push(levels, level + 1, carry, lanes)


def _full_adder(a: Expr, b: Expr, c: Expr, lanes: int) -> tuple[Expr, Expr]:
    """Sum and carry of three bits in every position."""
    if lanes == 16:
        # Of the generic form LLVM makes four instructions, not two.
        name, dtype = "llvm.x86.avx512.pternlog.d.512", "int32x16"
        words = [T.reinterpret(dtype, vector) for vector in (a, b, c)]
        parity, majority = (
            T.reinterpret("uint32x16", tirx.call_llvm_pure_intrin(dtype, name, *words, T.int32(f)))
            for f in (0x96, 0xE8)
        )
        return bind(parity), bind(majority)
    differ = bind(a ^ b)
    return bind(differ ^ c), bind((differ & c) | (~differ & a))
