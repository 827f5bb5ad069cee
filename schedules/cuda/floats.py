"""float32 on CUDA: questions about NaN, which TVM answers too early, and exp.

TVM's simplifier takes ``x != x`` for false, ``x > 0 or x < 0`` for ``x != 0`` and ``0 * x`` for 0:
bits are asked, or functions that it does not know.
"""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.cuda.grid import call
from gsb_tvm.schedules.vector import (
    EXP_LOW,
    EXP_TAYLOR,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    Expr,
    bind,
    maximum,
)

_INFINITY = 0x7F800000  # of a number without its sign


def _magnitude(x: Expr) -> Expr:
    return T.reinterpret("uint32", x) & T.uint32(0x7FFFFFFF)


def is_nonzero(x: Expr) -> Expr:
    """Whether x is above or below 0: not for NaN."""
    return bind(T.abs(x) > T.float32(0))


def is_nan(x: Expr) -> Expr:
    """Whether x is no number."""
    return bind(_magnitude(x) > T.uint32(_INFINITY))


def larger(a: Expr, b: Expr) -> Expr:
    """Larger of two, NaN where either is."""
    return call("gsb_max", a, b, dtype="float32")


def smaller(a: Expr, b: Expr) -> Expr:
    """Smaller of two, NaN where either is."""
    return call("gsb_min", a, b, dtype="float32")


def fused(a: Expr, b: Expr, c: Expr) -> Expr:
    """``a * b + c`` rounded once."""
    return bind(call("gsb_fma", a, b, c, dtype="float32"))


def kept(x: Expr) -> Expr:
    """x by a name that stays.

    Where a name is bound TVM may write out again what it stands for, and all that this stands for,
    wherever it is used: of an exponential, kilobytes of source.
    """
    return bind(call("gsb_kept", x, dtype="float32"))


def exp(x: Expr) -> Expr:
    """exp within 1 ulp for -87 <= x <= 0; 0 below: the steps of :func:`vector.exp`, one by one.

    Everything is compiled without contraction to fused multiply-add, so plain arithmetic rounds.
    """
    clipped = bind(maximum(x, T.float32(EXP_LOW)))
    n = bind(call("gsb_round", clipped * T.float32(LOG2_E), dtype="float32"))
    r = kept(clipped - n * T.float32(LN2_HIGH) - n * T.float32(LN2_LOW))
    q: Expr = T.float32(EXP_TAYLOR[0])
    for coefficient in EXP_TAYLOR[1:]:
        q = q * r + T.float32(coefficient)
    p = T.float32(1.0) + (r + r * r * q)
    power = T.reinterpret("float32", (T.cast(n, "int32") + 127) << 23)
    return kept(T.Select(x < T.float32(EXP_LOW), T.float32(0.0), p * power))
