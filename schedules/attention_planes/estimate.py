"""Masks of a row from estimates: one fused multiply-add for four values, and how sure they are.

With ``y`` the rounded reciprocal of a row's sum, ``u = fma(e, y, bias)`` stands for the graph's
``p' = fl(fl(e / sum) + bias)``. As 0 <= e <= 1,

    |u - p'| <= 2**-23 y + 2**-24 (|u| + |p'|)      up to second order

so that ``|u - bound| >= 2**-22 (y + |bound|)`` decides the base mask: both lie on one side of the
bound. Of ``t = fl(u - bound)`` only the upper half is looked at, and of that the upper byte: the
sign, and the exponent but for its last bit. Twice that byte orders all |t| by powers of 4.

Likewise a value above L, the smallest ratio of the largest value so far, has
``u >= L - 2**-22 (1 + |L|)``. While the largest value is negative, one between it and L is passed
over; but then no listed value exceeds a ratio of it, and none of its own words is set.

Words with a value too close to the bound, or above L, are computed again, exactly.
"""

import functools
from collections.abc import Sequence

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes.byte_vectors import QUAD, every_second, reduced
from gsb_tvm.schedules.attention_planes.candidates import Candidates, constant
from gsb_tvm.schedules.attention_planes.masks import Masks
from gsb_tvm.schedules.attention_planes.row import LOWEST, Piece
from gsb_tvm.schedules.counting import reinterpret
from gsb_tvm.schedules.neon import BYTES, packed

Vectors = Sequence[v.Expr]

HALVES = BYTES // 2  # numbers of 16 bits in a vector
SLACK = 2.0**-21  # twice what the bounds above need, which covers their second order
NOTHING = -(2**15)  # below the upper half of every number


class Estimate:
    """One row of estimates."""

    def __init__(
        self, tokens: int, masks: Masks, candidates: Candidates | None, total: v.Expr
    ) -> None:
        self.masks, self.candidates = masks, candidates
        self.reciprocal = v.bind(tirx.const(1.0, "float32") / total)
        self.smallest = v.local((BYTES,), "uint8")
        self.largest = v.local((HALVES,), "int16")
        self.words = v.local((words(tokens), HALVES), "int16")
        # In memory, of which TVM knows nothing: it opens names in conditions, which takes seconds.
        self.bytes = v.local((WORD_BITS,), "int8")
        self.is_unsure, self.least = v.local((1,), "int32"), v.local((1,), "int32")
        v.store(self.smallest, v.splat(0xFF, BYTES, "uint8"), 0, lanes=BYTES)
        v.store(self.largest, v.splat(NOTHING, HALVES, "int16"), 0, lanes=HALVES)

    def take(self, e: Vectors, bias: Vectors | None, piece: Piece, word: v.Expr) -> None:
        """Write the base mask of one word, from vectors of four exponentials each."""
        y, bound = v.splat(self.reciprocal, QUAD), v.splat(self.masks.bound, QUAD)
        distances = []
        for i, numerators in enumerate(e):
            u = numerators * y if bias is None else _fma(numerators, y, bias[i])
            distances.append(v.bind(_existing(u - bound, piece.keys - QUAD * i)))
        uppers = [every_second(pair, "int16x8", odd=True) for pair in _pairs(distances)]
        self._take_largest(uppers, piece)
        upper_bytes = [every_second(pair, "int8x16", odd=True) for pair in _pairs(uppers)]
        for i, each in enumerate(upper_bytes):
            self._take_smallest(each)
            v.store(self.bytes, each, i * BYTES, lanes=BYTES)
        if len(upper_bytes) == 1:
            v.store(self.bytes, v.splat(-1, BYTES, "int8"), BYTES, lanes=BYTES)
        signs = v.load(self.bytes, 0, lanes=WORD_BITS)
        v.put(self.masks.flat, packed([signs >= v.splat(0, WORD_BITS, "int8")]), word)

    def _take_largest(self, uppers: Vectors, piece: Piece) -> None:
        if self.candidates is None:
            return
        largest = functools.reduce(lambda a, b: v.bind(v.maximum(a, b)), uppers)
        v.store(self.words, largest, piece.word, 0, lanes=HALVES)
        largest = v.maximum(v.load(self.largest, 0, lanes=HALVES), largest)
        v.store(self.largest, largest, 0, lanes=HALVES)

    def _take_smallest(self, upper_bytes: v.Expr) -> None:
        doubled = reinterpret(upper_bytes + upper_bytes, f"uint8x{BYTES}")
        least = v.minimum(v.load(self.smallest, 0, lanes=BYTES), doubled)
        v.store(self.smallest, least, 0, lanes=BYTES)

    def is_undecided(self) -> v.Expr:
        """Whether words of the row have to be computed again."""
        spread = v.bind((self.reciprocal + _abs(self.masks.bound)) * constant(SLACK))
        doubled = (reinterpret(spread, "uint32") >> tirx.const(23, "uint32")) & tirx.const(
            0xFE, "uint32"
        )
        smallest = reduced("umin", v.load(self.smallest, 0, lanes=BYTES))
        v.put(self.is_unsure, T.cast(T.cast(smallest, "uint32") <= doubled, "int32"), 0)
        if self.candidates is None:
            return self.is_unsure[0] != 0
        v.put(self.least, self._least(self.candidates), 0)
        largest = v.load(self.largest, 0, lanes=HALVES)
        return tirx.any(self.is_unsure[0] != 0, self._reaches(largest))

    def is_undecided_in(self, piece: Piece) -> v.Expr:
        """Whether that word has to be, in a row that :meth:`is_undecided`."""
        if self.candidates is None:
            return self.is_unsure[0] != 0
        largest = v.load(self.words, piece.word, 0, lanes=HALVES)
        return tirx.any(self.is_unsure[0] != 0, self._reaches(largest))

    def _reaches(self, largest: v.Expr) -> v.Expr:
        return T.cast(reduced("smax", largest), "int32") >= self.least[0]

    def _least(self, candidates: Candidates) -> v.Expr:
        """Upper half of the least distance that an estimate has whose value is to be listed."""
        bound, least = self.masks.bound, candidates.threshold
        slack = (constant(1.0) + _abs(least) + _abs(bound)) * constant(SLACK)
        distance = v.bind(least - bound - slack)
        half = reinterpret(distance, "int32") >> tirx.const(16, "int32")
        return T.Select(distance > constant(0.0), half, tirx.const(NOTHING, "int32"))


def _pairs(vectors: Vectors) -> list[Vectors]:
    return [vectors[i : i + 2] for i in range(0, len(vectors), 2)]


def _existing(distances: v.Expr, keys: int) -> v.Expr:
    """The lowest number in the place of all but the first ``keys``."""
    if keys >= QUAD:
        return distances
    lowest = v.splat(constant(LOWEST), QUAD)
    if keys <= 0:
        return lowest
    exists = T.ramp(0, 1, QUAD) < v.splat(keys, QUAD, "int32")
    return T.Select(exists, distances, lowest)


def _fma(a: v.Expr, b: v.Expr, c: v.Expr) -> v.Expr:
    return tirx.call_llvm_pure_intrin("float32x4", "llvm.fma", a, b, c)


def _abs(x: v.Expr) -> v.Expr:
    return tirx.call_llvm_pure_intrin("float32", "llvm.fabs", x)
