"""Counts by table lookup: two shuffles and two additions for 256 products, on AVX2.

A row of the table holds popc(n ^ m) of one nibble n against all 16 nibbles m; one vpshufb looks 32
columns up, on AVX-512 64 and with SSSE3 16. For this the weights of a column block are turned once,
from words to one vector per nibble (lane = column), and stay so while all tokens pass.
"""

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.dense.counters import Cells, Tile, each, repeat
from gsb_tvm.schedules.dense.formula import Part, Term
from gsb_tvm.schedules.dense.tiles import Tiles
from gsb_tvm.schedules.vector import bind, load, local, popcount, splat, store, workspace

Expr = Any
Buffer = Any

NIBBLES = 8  # per word
BYTE_WORDS = 7  # a byte counter gains at most 32 per word: 7 * 32 <= 255
PAIR_WORDS = 2047  # a 16-bit counter: 2047 * 32 <= 65535

_SHUFFLES = {
    16: "llvm.x86.ssse3.pshuf.b.128",
    32: "llvm.x86.avx2.pshuf.b",
    64: "llvm.x86.avx512.pshuf.b.512",
}


class Lookup:
    """Counts one register tile after another against the weights of one column block."""

    def __init__(self, terms: tuple[Term, ...], words: int, shape: Tiles) -> None:
        self.parts = list(dict.fromkeys(term.weight for term in terms))
        self.turned = workspace((len(self.parts), words * NIBBLES, shape.column_tile), "uint8")
        self.words, self.lanes, self.unroll = words, shape.lanes, shape.unroll
        lanes = self.lanes
        self.table = local((16 * lanes,), "uint8")
        lane = T.cast(T.ramp(0, 1, lanes), f"uint8x{lanes}") & splat(15, lanes, "uint8")
        for nibble in range(16):
            row = popcount(lane ^ splat(nibble, lanes, "uint8"))
            store(self.table, row, nibble * lanes, lanes=lanes)

    def enter(self, columns: int, weight: Callable[[Part, Expr, Expr], Expr]) -> None:
        """Turn a block; ``weight(part, word, columns)`` reads words as a uint32 vector."""
        lanes = self.lanes
        with T.serial(0, self.words) as word, T.serial(0, -(-columns // lanes)) as group:
            for i, part in enumerate(self.parts):
                bits = bind(weight(part, word, T.ramp(group * lanes, 1, lanes)))
                for byte in range(4):
                    shifted = bits >> splat(8 * byte, lanes, "uint32")
                    # Without the mask LLVM saturates, one pack after another.
                    shifted = shifted & splat(255, lanes, "uint32")
                    low = bind(T.cast(shifted, f"uint8x{lanes}"))
                    halves = (low & splat(15, lanes, "uint8"), low >> splat(4, lanes, "uint8"))
                    for k, half in enumerate(halves):
                        at = word * NIBBLES + 2 * byte + k
                        store(self.turned, half, i, at, group * lanes, lanes=lanes)

    def count(self, tile: Tile, terms: tuple[Term, ...], first: Expr) -> Cells:
        """Totals of a tile whose first column is ``first`` of the block."""
        total = Cells(tile, self.lanes, "int32")
        total.clear()
        for term in terms:

            def add_words(start: Expr, words: int, term: Term = term) -> None:
                pairs = self._count_pairs(tile, term, start, words, first)
                for cell, count in pairs.items():
                    total.add(cell, T.cast(count, f"int32x{self.lanes}"), term.sign)

            repeat(self.words, PAIR_WORDS, add_words)
        return total

    def _count_pairs(self, tile: Tile, term: Term, start: Expr, words: int, first: Expr) -> Cells:
        counter, pairs = Cells(tile, self.lanes, "uint8"), Cells(tile, self.lanes, "uint16")
        pairs.clear()
        chunk = -(-words // -(-words // BYTE_WORDS))

        def add_bytes(first_word: Expr, length: int) -> None:
            counter.clear()
            each(
                4 * length,
                self.unroll,
                lambda k: self._add_byte(tile, term, 4 * (start + first_word) + k, first, counter),
            )
            for cell, count in counter.items():
                pairs.add(cell, T.cast(count, f"uint16x{self.lanes}"))

        repeat(words, chunk, add_bytes)
        return pairs

    def _add_byte(self, tile: Tile, term: Term, byte: Expr, first: Expr, counter: Cells) -> None:
        """Look both nibbles of a byte up: one loop for all bytes keeps the sums in registers."""
        lanes = self.lanes
        plane, byte = self.parts.index(term.weight), bind(byte)
        word, shift = T.floordiv(byte, 4), bind(T.cast(T.floormod(byte, 4) * 8, "uint32"))
        low, high = (
            [
                bind(load(self.turned, plane, 2 * byte + k, (first + j) * lanes, lanes=lanes))
                for j in range(tile.vectors)
            ]
            for k in range(2)
        )
        for i in range(tile.rows):
            bits = bind(tile.activation(term, word, i) >> shift)
            rows = [
                bind(load(self.table, T.cast(at, "int32"), lanes=lanes))
                for at in (
                    (bits & T.uint32(15)) * T.uint32(lanes),
                    (bits & T.uint32(240)) * T.uint32(lanes // 16),
                )
            ]
            for j in range(tile.vectors):
                counter.add((i, j), shuffled(rows[0], low[j]) + shuffled(rows[1], high[j]))


def shuffled(table: Expr, index: Expr) -> Expr:
    """``table[index]`` within each 128 bits; LLVM has no generic form of it."""
    lanes = int(str(table.ty.dtype).removeprefix("uint8x"))
    signed = f"int8x{lanes}"
    looked_up = tirx.call_llvm_pure_intrin(
        signed, _SHUFFLES[lanes], T.reinterpret(signed, table), T.reinterpret(signed, index)
    )
    return T.reinterpret(f"uint8x{lanes}", looked_up)
