"""Signs of four tokens at a time by the highest bits of numbers, masks one by one (Neon).

With ``scale = 2 / t`` for the ``t`` that lies nearest to 0 of all that a value must exceed, or stay
below, to be in a mask, the highest bits of ``scale u`` say its sign, that it is in no mask
(``|scale u| < 2``) and that it is not 0 (``>= 2**-63``). A multiplication and an insertion do that
for four values. Values of which they do not say it, a few in a thousand as a rule, are compared one
by one. ``scale`` is taken too large by more than its rounding, so nothing in a mask stays below 2.
"""

from collections.abc import Sequence

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.set_bits import for_each_bit
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.top_bits import (
    LARGE,
    NORMAL,
    QUAD,
    QUADS,
    SIGNS,
    gathered,
    only,
    words_of,
)
from gsb_tvm.schedules.value_planes.bounds import Bounds

ROWS = QUAD  # tokens whose words are one vector
ALL = 0xFFFFFFFF

Buffers = dict[str, v.Buffer]


def nearest(bounds: Bounds) -> v.Expr:
    """The bound nearest to 0; not positive, or NaN, where 0 itself may be in a mask.

    A bound that is NaN is met by nothing.
    """
    distances = [*bounds.above, *[T.float32(0.0) - below for below in bounds.below]]
    least = distances[0]
    for distance in distances[1:]:
        least = v.minimum(distance, least)
    return v.bind(least)


class Signs:
    """Planes of a part's tokens; ``nearest`` is positive."""

    def __init__(self, spec: ValuePlanes, t: Buffers, bounds: Bounds, nearest: v.Expr) -> None:
        self._spec, self._t, self._bounds = spec, t, bounds
        self._scale = v.bind(T.float32(2.0 + 2.0**-20) / nearest)
        self._masked = spec.kind is Kind.MASKED
        count = 1 + self._masked + len(spec.ratios)
        self._words = [v.local((ROWS,), "uint32") for _ in range(count)]
        self._doubts = v.local((ROWS,), "uint32")

    def write(self, share: Share, missing: v.Buffer) -> None:
        """Write every plane; bits of values without a sign gather in ``missing``, uint32[1]."""
        rows = self._spec.rows
        start, end = share.span(-(-rows.tokens // ROWS))
        with T.serial(rows.batch) as b, T.serial(start, end) as i:
            first = v.bind(T.min(i * ROWS, rows.tokens - ROWS))
            tokens = [first + row for row in range(ROWS)]
            # Hidden distances, because LLVM loads two vectors at once only near their own pointer.
            hidden = [
                v.bind(T.cast(v.hidden(T.cast(token, "uint32")), "int32")) for token in tokens
            ]
            with T.serial(words(rows.features)) as word:
                self._block(b, first, word, hidden, missing)

    def _value(self, b: v.Expr, token: v.Expr, feature: v.Expr, lanes: int) -> v.Expr:
        def at(buffer: v.Buffer, *index: v.Expr) -> v.Expr:
            return v.load(buffer, *index, lanes=lanes) if lanes > 1 else buffer[index]

        x = at(self._t["x"], b, token, feature)
        return x + at(self._t["shift"], feature) if self._spec.shift else x

    def _block(
        self, b: v.Expr, first: v.Expr, word: v.Expr, tokens: Sequence[v.Expr], missing: v.Buffer
    ) -> None:
        rows: list[v.Expr] = [None] * ROWS
        for quad in reversed(range(QUADS)):
            feature = v.bind(word * WORD_BITS + quad * QUAD)
            for row, token in enumerate(tokens):
                u = self._value(b, token, feature, QUAD)
                scaled = u * v.splat(self._scale, QUAD)
                rows[row] = gathered(rows[row], scaled, quad)

        def vector(bits: int) -> v.Expr:
            return v.splat(bits, QUAD, "uint32")

        negative = words_of([only(row, SIGNS) for row in rows])
        signs = v.bind(T.bitwise_not(negative))
        small = ~(rows[0] | rows[1] | rows[2] | rows[3]) | vector(ALL & ~LARGE)
        normal = rows[0] & rows[1] & rows[2] & rows[3] | vector(ALL & ~NORMAL)
        plain = v.bind(small & normal)
        with T.If(neon.smallest(plain) == T.uint32(ALL)):
            with T.Then():
                values = [signs, vector(ALL), *[vector(0)] * len(self._spec.ratios)]
                self._store(b, word, first, values if self._masked else [values[0], *values[2:]])
            with T.Else():
                self._settle(b, first, word, signs, rows)
                planes = [v.bind(v.load(plane, 0, lanes=ROWS)) for plane in self._words]
                self._store(b, word, first, planes)
                if self._masked:
                    zeros = v.reduce(planes[1], ROWS, lambda x, y: x & y) ^ T.uint32(ALL)
                    v.put(missing, missing[0] | zeros, 0)

    def _store(self, b: v.Expr, word: v.Expr, first: v.Expr, planes: Sequence[v.Expr]) -> None:
        outputs: list[tuple[v.Buffer, tuple[int, ...]]] = [(self._t["out_bits"], ())]
        if self._masked:
            outputs.append((self._t["out_nonzero"], ()))
        outputs += [(self._t["masks"], (r,)) for r in range(len(self._spec.ratios))]
        for (buffer, plane), value in zip(outputs, planes, strict=True):
            v.store(buffer, value, *plane, b, word, first, lanes=ROWS)

    def _settle(
        self, b: v.Expr, first: v.Expr, word: v.Expr, signs: v.Expr, rows: Sequence[v.Expr]
    ) -> None:
        """Words of four tokens with the values in doubt compared one by one."""
        every, none = v.splat(ALL, ROWS, "uint32"), v.splat(0, ROWS, "uint32")
        values = [signs, every] if self._masked else [signs]
        values += [none] * len(self._spec.ratios)
        for plane, value in zip(self._words, values, strict=True):
            v.store(plane, value, 0, lanes=ROWS)
        large, normal = (words_of([only(row, bit) for row in rows]) for bit in (LARGE, NORMAL))
        doubts = large | ~normal
        v.store(self._doubts, doubts, 0, lanes=ROWS)
        with T.serial(ROWS) as row:
            for_each_bit(self._doubts[row], lambda bit: self._compare(b, first, word, row, bit))

    def _compare(self, b: v.Expr, first: v.Expr, word: v.Expr, row: v.Expr, bit: v.Expr) -> None:
        u = v.bind(self._value(b, first + row, word * WORD_BITS + bit, 1))
        zero = T.float32(0.0)
        found = [u > zero]
        if self._masked:
            found.append(T.Or(u > zero, u < zero))
        pairs = zip(self._bounds.above, self._bounds.below, strict=True)
        found += [T.Or(u > above, u < below) for above, below in pairs]
        place = v.bind(T.uint32(1) << T.cast(bit, "uint32"))
        for plane, holds in zip(self._words, found, strict=True):
            others = plane[row] & ~place
            v.put(plane, others | T.Select(holds, place, T.uint32(0)), row)
