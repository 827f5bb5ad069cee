"""Comparisons decided by an estimate, and only in doubt by the steps of the graph (Neon).

What is compared is monotone in ``q = (x - mean) / s``, so its outcome is the sign of ``q + Q`` with
``Q = (beta + shift - bound) / gamma``, turned round where gamma is negative. A subtraction and a
fused multiply-add give ``z = scale (x / s + (Q - mean / s))``; the graph takes six steps. The two
differ, in units of ``scale / gamma``, by less than

    2**-24 (8 |q| + 6 |mean / s| + 12 R),    R = (|beta| + |shift| + |bound|) / |gamma|

which collects a rounding of each step of both, of 1 / s and of Q, with those of second order in the
integers. ``|q| <= 1.01 sqrt(n)``, since s**2 is not less than the variance of n features. So with
``scale = 2 / error`` an outcome is certain where ``|z| >= 2``: the highest bit of its exponent is
set, and goes into a word together with the sign (:mod:`top_bits <gsb_tvm.schedules.top_bits>`).

In doubt, in about one of 2e4 numbers, a word of the block is computed step by step. Where Q is so
large that q cannot change the sign, any other large Q does; a mean above ``MEAN`` deviations, an
error above ``ERROR`` and what is not finite leave the whole block to the steps of the graph.
"""

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.binarize.formula import DEVIATION_HIGH, DEVIATION_LOW, fused
from gsb_tvm.schedules.top_bits import (
    LARGE,
    QUAD,
    QUADS,
    SIGNS,
    gathered,
    only,
    places,
    words_of,
)
from gsb_tvm.schedules.vector import Buffer, Expr

ROWS = QUAD  # of a block: words of four tokens are one vector
MEAN = 16.0
ERROR = 2.0**-9
ULP = 2.0**-24
FAR = 2.0**20  # an R whose error is too large
TINY = 2.0**-90  # products of a gamma below may underflow
ALL = 0xFFFFFFFF


class Estimates:
    """Estimates of one part."""

    def __init__(self, spec: Binarize, named: dict[str, Buffer]) -> None:
        self._spec, self._named = spec, named
        features = spec.rows.features
        self._offset = v.workspace((features,), "float32")  # scale * Q
        self._turned = v.workspace((words(features),), "uint32")  # where gamma has no sign
        self._scale = v.local((1,), "float32")
        self._usable = v.local((1,), "bool")  # whether the error is small enough
        self._most = 1.01 * features**0.5  # no |q| is larger

    def prepare(self) -> None:
        """Q and the scale, from gamma, beta and shift."""
        features = self._spec.rows.features
        largest = v.local((QUAD,), "float32")
        v.store(largest, v.splat(0.0, QUAD), 0, lanes=QUAD)
        with T.serial(words(features)) as word:
            signs = None
            for quad in reversed(range(QUADS)):
                at = v.bind(word * WORD_BITS + quad * QUAD)
                gamma = v.bind(v.load(self._named["gamma"], at, lanes=QUAD))
                offset, ratio = self._offset_and_ratio(gamma, at)
                v.store(self._offset, offset, at, lanes=QUAD)
                most = v.maximum(ratio, v.load(largest, 0, lanes=QUAD))
                v.store(largest, most, 0, lanes=QUAD)
                signs = gathered(signs, gamma, quad)
            signs_of_gamma = v.reduce(places(only(signs, SIGNS)), QUAD, lambda a, b: a | b)
            v.put(self._turned, T.bitwise_not(signs_of_gamma), word)
        worst = v.reduce(v.load(largest, 0, lanes=QUAD), QUAD, v.maximum)
        error = v.bind(T.float32(ULP) * (8 * self._most + 7 * MEAN + 12 * worst))
        v.put(self._usable, error <= T.float32(ERROR), 0)
        v.put(self._scale, T.float32(2.0) / error, 0)
        with T.serial(features // QUAD) as quad:
            scaled = v.load(self._offset, quad * QUAD, lanes=QUAD) * self._scale_vector()
            v.store(self._offset, scaled, quad * QUAD, lanes=QUAD)

    def _offset_and_ratio(self, gamma: Expr, at: Expr) -> tuple[Expr, Expr]:
        """Q of four features, as near 0 as changes nothing, and R; FAR where there is no bound."""
        beta, bound = v.load(self._named["beta"], at, lanes=QUAD), self._spec.compare.bound
        whole, size = beta, v.rounded(_abs(beta)) + v.splat(abs(bound), QUAD)
        if self._spec.shift:
            shift = v.bind(v.load(self._named["shift"], at, lanes=QUAD))
            whole, size = whole + shift, size + _abs(shift)
        whole, size = v.bind(whole - v.splat(bound, QUAD)), v.bind(size)
        width = v.bind(_abs(gamma))
        far = v.splat(4 * self._most, QUAD)
        offset = v.maximum(v.minimum(whole / gamma, far), v.splat(0.0, QUAD) - far)
        reach = v.rounded(width * v.splat(2 * self._most, QUAD))
        reach = reach + v.rounded(size * v.splat(2.0**-20, QUAD)) + v.splat(TINY, QUAD)
        ratio = v.bind(size / width)
        bounded = T.And(ratio <= v.splat(FAR, QUAD), width >= v.splat(TINY, QUAD))
        ratio = T.Select(bounded, ratio, v.splat(2 * FAR, QUAD))
        return offset, T.Select(_abs(whole) > reach, v.splat(0.0, QUAD), ratio)

    def _scale_vector(self) -> Expr:
        return v.splat(self._scale[0], QUAD)

    def scaled(self, mean: Expr, reciprocal: Expr) -> tuple[Expr, Expr]:
        """What x of each of four rows is multiplied with, and what is then taken off."""
        slopes = v.bind(reciprocal * self._scale_vector())
        return slopes, v.bind(v.rounded(mean * slopes))

    def hold(self, mean: Expr, deviation: Expr, reciprocal: Expr) -> Expr:
        """Whether estimates are good for four rows."""
        normal = T.And(
            deviation >= v.splat(DEVIATION_LOW, ROWS), deviation <= v.splat(DEVIATION_HIGH, ROWS)
        )
        near = _abs(mean * reciprocal) <= v.splat(MEAN, ROWS)
        every, none = v.splat(ALL, ROWS, "uint32"), v.splat(0, ROWS, "uint32")
        rows = neon.smallest(T.Select(T.And(normal, near), every, none))
        return T.And(self._usable[0], rows == T.uint32(ALL))

    def word(
        self, word: Expr, slopes: Expr, middles: Sequence[Expr], load: Callable[[int, Expr], Expr]
    ) -> tuple[Expr, Expr]:
        """Packed words of four rows, and the word that is all ones where each of them is certain.

        ``load(row, feature)`` gives four neighbours; the subtrahends come as vectors of one value.
        """
        rows: list[Expr] = [None] * ROWS
        for quad in reversed(range(QUADS)):
            at = v.bind(word * WORD_BITS + quad * QUAD)
            offset = v.bind(v.load(self._offset, at, lanes=QUAD))
            for row in range(ROWS):
                slope = v.splat(T.Shuffle([slopes], [row]), QUAD)
                estimate = fused(load(row, at), slope, offset - middles[row])
                rows[row] = gathered(rows[row], estimate, quad)
        certain = rows[0] & rows[1] & rows[2] & rows[3]
        turned = v.splat(self._turned[word], ROWS)
        bits = v.bind(words_of([only(row, SIGNS) for row in rows]) ^ turned)
        return bits, v.bind(certain | v.splat(ALL & ~LARGE, QUAD, "uint32"))


def _abs(value: Expr) -> Expr:
    return tirx.abs(value)
