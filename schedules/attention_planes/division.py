"""Correctly rounded quotients of many numerators and one denominator."""

from collections.abc import Callable

from tvm import tirx

from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.targets import Profile

Divide = Callable[[v.Expr, int], v.Expr]  # (numerators, lanes) -> quotients

# Numerators are above exp(-69) > 2**-100, so that the remainder x - q * s, a multiple of
# 2**-48 * x, is exact, and quotients by sums below 2**24 are not denormal.
LARGEST_EXPONENT = 69


def divide_by(spec: AttentionPlanes, profile: Profile, denominator: v.Expr) -> Divide:
    """Division of exponentials by ``denominator``, a bound scalar."""
    if not (profile.has_fma and spec.spread <= LARGEST_EXPONENT):
        return lambda x, lanes: x / v.splat(denominator, lanes)
    reciprocal = v.bind(tirx.const(1.0, "float32") / denominator)
    return lambda x, lanes: markstein(x, denominator, reciprocal, lanes)


def markstein(x: v.Expr, s: v.Expr, y: v.Expr, lanes: int) -> v.Expr:
    """``x / s`` rounded once, from ``y``, the rounded reciprocal of ``s``: three instructions.

    ``q = fl(x y)``, ``r = x - q s`` in one FMA, quotient ``fl(q + r y)`` in one FMA. Take both
    significands in [1, 2) and ``u = 2**-24``. ``|y s - 1| < u`` and ``|q - x / s| < 2 u`` make
    ``q + r y`` differ from ``x / s`` by less than ``4 u**2``, rounding of ``r`` included. The
    result is wrong only where a tie m lies between the two, where the integer
    ``k = (x - m s) / u**2`` (with ``x >= s``: ``k = (x - m s) / (2 u**2)``) has ``|k| <= 8``;
    k = 0 does not occur. Solving ``m s = -k`` modulo the power of two gives every such pair of
    significands, 46.5 million of them: all divide right, see ``test_division``.
    """
    product = v.bind(x * v.splat(y, lanes))
    remainder = v.bind(_fma(product, v.splat(-s, lanes), x, lanes))
    return _fma(remainder, v.splat(y, lanes), product, lanes)


def _fma(a: v.Expr, b: v.Expr, c: v.Expr, lanes: int) -> v.Expr:
    return tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", a, b, c)
