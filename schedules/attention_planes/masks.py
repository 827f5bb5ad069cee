"""Packed masks of a float row: the base mask at once, those of the global maximum at the end.

What a ratio mask needs, the maximum over everything, is known only after the last row. Until then
each word of 32 values is written to a list whose end moves on only where a value exceeds the
smallest ratio of the maximum so far: no branch, and most words are overwritten by the next. With
0 < ratio <= 1 no value is lost: if the final maximum is not negative its thresholds only grow, and
``fl(ratio * max)`` is monotonic in both factors; if it is negative nothing exceeds
``ratio * max >= max``.
"""

from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, product
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import tiles
from gsb_tvm.schedules.attention_planes.row import HALF, LOWEST, Accumulator, Piece


def constant(value: float) -> v.Expr:
    """float32 constant."""
    return tirx.const(float(np.float32(value)), "float32")


class Masks:
    """The base mask and, where the spec has ratios, the list of candidates for the others."""

    def __init__(self, spec: AttentionPlanes, masks: v.Buffer, bound: v.Expr) -> None:
        self.spec, self.bound = spec, bound
        shape = spec.rows.packed_shape
        self.plane = product(shape)
        self.row = shape[2]
        count = (1 + len(spec.ratios)) * self.plane
        self.flat: Any = T.decl_buffer((count,), "uint32", data=masks.data)
        self.candidates = _Candidates(spec) if spec.ratios else None

    def start_block(self) -> None:
        """Before a block of rows."""
        if self.candidates is not None:
            self.candidates.start_block()

    def take(self, p: v.Expr, piece: Piece, word: v.Expr) -> None:
        """Write the base mask of one word's values; ``word`` is its place in a plane."""
        lanes, spec = piece.lanes, self.spec
        bound = v.splat(self.bound, lanes)
        bits = v.bits_of(p > bound if spec.strict else p >= bound, lanes)
        v.put(self.flat, bits if lanes == WORD_BITS else T.cast(bits, "uint32"), word)
        if self.candidates is not None:
            self.candidates.take(p, lanes, word)

    def end_block(self) -> None:
        """After a block of rows."""
        if self.candidates is not None:
            self.candidates.end_block()

    def finish(self) -> None:
        """Write the masks of the maximum."""
        if self.candidates is None:
            return
        zero = v.splat(0, HALF, "uint32")
        ratios = len(self.spec.ratios)
        with T.serial(ratios * self.plane // HALF) as i:
            v.store(self.flat, zero, self.plane + i * HALF, lanes=HALF)
        self.candidates.write(self.flat, self.plane)


class _Candidates:
    def __init__(self, spec: AttentionPlanes) -> None:
        self.spec = spec
        self.smallest = constant(min(spec.ratios))
        words = tiles.kept_words(spec)
        self.values = v.workspace((words, WORD_BITS), "float32")
        self.places = v.workspace((words,), "int32")
        self.count = v.local((1,), "int32")
        self.highest = v.local((1,), "float32")
        v.put(self.count, tirx.const(0, "int32"), 0)
        v.put(self.highest, constant(LOWEST), 0)

    def start_block(self) -> None:
        self.threshold = v.bind(self.smallest * self.highest[0])
        self.block = Accumulator(LOWEST, v.maximum)

    def take(self, p: v.Expr, lanes: int, word: v.Expr) -> None:
        at = v.bind(self.count[0])
        v.store(self.values, p, at, 0, lanes=lanes)
        if lanes < WORD_BITS:
            rest = WORD_BITS - lanes
            v.store(self.values, v.splat(LOWEST, rest), at, lanes, lanes=rest)
        v.put(self.places, word, at)
        above = v.bits_of(p > v.splat(self.threshold, lanes), lanes)
        v.put(self.count, at + T.cast(above != tirx.const(0, f"uint{lanes}"), "int32"), 0)
        self.block.take(p, lanes)

    def end_block(self) -> None:
        v.put(self.highest, v.maximum(self.block.total(), self.highest[0]), 0)

    def write(self, flat: v.Buffer, plane: int) -> None:
        highest = v.bind(self.highest[0])
        thresholds = [v.bind(constant(ratio) * highest) for ratio in self.spec.ratios]
        with T.serial(self.count[0]) as n:
            values = v.bind(v.load(self.values, n, 0, lanes=WORD_BITS))
            place = v.bind(self.places[n])
            for r, threshold in enumerate(thresholds):
                bits = v.bits_of(values > v.splat(threshold, WORD_BITS), WORD_BITS)
                v.put(flat, bits, (1 + r) * plane + place)
