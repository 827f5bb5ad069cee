"""Correctly rounded quotients of many numerators and one denominator."""

from collections.abc import Callable

from tvm import tirx

from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.targets import Profile

Divide = Callable[[v.Expr, int], v.Expr]  # (numerators, lanes) -> quotients

# exp(-69) > 2**-100, so with sums below 2**20 a quotient's remainder is never denormal.
LARGEST_EXPONENT = 69.0


def divide_by(spec: AttentionPlanes, profile: Profile, denominator: v.Expr) -> Divide:
    """Division of exponentials by ``denominator``, a bound scalar."""
    if not (profile.has_fma and exponent_range(spec) <= LARGEST_EXPONENT):
        return lambda x, lanes: x / v.splat(denominator, lanes)
    reciprocal = v.bind(tirx.const(1.0, "float32") / denominator)
    return lambda x, lanes: markstein(x, denominator, reciprocal, lanes)


def exponent_range(spec: AttentionPlanes) -> float:
    """Bound of ``max(x) - x``: dot products lie in [-width, width]."""
    factor = 1.0 if spec.factor is None else spec.factor
    return 2.0 * spec.q.width * abs(spec.scale * factor) * (1 + 2**-20)


def markstein(x: v.Expr, s: v.Expr, y: v.Expr, lanes: int) -> v.Expr:
    """``x / s`` rounded once, from ``y``, the rounded reciprocal of ``s``: three instructions.

    ``q = fl(x y)``, ``r = x - q s`` (one FMA), quotient ``fl(q + r y)`` (one FMA). ``q + r y``
    differs from ``x / s`` by less than 3 * 2**-49 of its binade, and a quotient of two 24-bit
    numbers that is no tie is at least 2**-49 / s away from one. The numerators this leaves open
    are at most ten for each of the 2**23 significands of ``s``, found by solving
    ``m s = +-k (mod 2**25)`` for the ties ``m``.
    """
    product = v.bind(x * v.splat(y, lanes))
    remainder = v.bind(_fma(product, v.splat(-s, lanes), x, lanes))
    return _fma(remainder, v.splat(y, lanes), product, lanes)


def _fma(a: v.Expr, b: v.Expr, c: v.Expr, lanes: int) -> v.Expr:
    return tirx.call_llvm_pure_intrin(f"float32x{lanes}", "llvm.fma", a, b, c)
