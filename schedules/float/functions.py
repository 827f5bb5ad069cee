"""float32 functions as arithmetic that vectorises, where LLVM would call the scalar library."""

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import (
    EXP_TAYLOR,
    LN2_HIGH,
    LN2_LOW,
    LOG2_E,
    ROUNDING,
    Expr,
    rounded,
)

# x p(x**2) / q(x**2), highest coefficient first; least-squares fits reweighted towards the least
# maximal relative error, 2e-8 and 2e-9 on [0, limit]; beyond it the function rounds to 1.
_ERF_LIMIT = 3.9
_ERF = (
    (2.06645442e-06, 2.85062318e-04, 3.73839056e-03, 5.26682276e-02, 0.189667974, 1.12837915),
    (3.82698287e-05, 1.15738509e-03, 1.49143708e-02, 0.113819426, 0.501421647, 1.0),
)
_TANH_LIMIT = 9.0
_TANH = (
    (-1.22463469e-11, 3.06426762e-08, 2.80313768e-05, 3.86951138e-03, 0.136808592, 1.0),
    (1.28903957e-06, 3.94071926e-04, 2.72501691e-02, 0.470141913, 1.0),
)


def constant(value: float) -> Expr:
    """A float32 constant."""
    return tirx.const(value, "float32")


def let(value: Expr, body: Callable[[Expr], Expr]) -> Expr:
    """``body`` of a name for ``value``, so that it is computed once."""
    var: Any = tirx.Var("t", value.ty.dtype)
    return tirx.Let(var, value, body(var))


def polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme, highest coefficient first."""
    total = constant(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + constant(coefficient)
    return total


def clamp(x: Expr, low: float, high: float) -> Expr:
    """``x`` within [low, high]; NaN stays NaN."""
    above = T.Select(x < constant(low), constant(low), x)
    return let(above, lambda y: T.Select(y > constant(high), constant(high), y))


def exp(x: Expr) -> Expr:
    """exp within 2 ulp, denormal results and infinity included.

    x = n ln 2 + r with ln 2 in two parts, a Taylor polynomial in r, and 2**n as two factors, since
    n reaches from -150 to 128.
    """
    magic = constant(ROUNDING)

    def power_of_two(n: Expr) -> Expr:
        exponent = T.Cast("int32", n) + tirx.const(127, "int32")
        return T.reinterpret("float32", exponent << tirx.const(23, "int32"))

    def scaled(p: Expr, n: Expr) -> Expr:
        half = T.floor(n * constant(0.5))
        return let(half, lambda h: p * power_of_two(h) * power_of_two(n - h))

    def reduced(x: Expr, n: Expr) -> Expr:
        high = rounded(n * constant(LN2_HIGH))
        r = x - high - rounded(n * constant(LN2_LOW))
        return let(
            let(r, lambda r: constant(1.0) + (r + r * r * polynomial(r, EXP_TAYLOR))),
            lambda p: scaled(p, n),
        )

    def on_range(x: Expr) -> Expr:
        n = rounded(rounded(x * constant(LOG2_E)) + magic) - magic
        return let(n, lambda n: reduced(x, n))

    return let(clamp(x, -104.0, 89.0), on_range)


def _rational(x: Expr, limit: float, fit: tuple[tuple[float, ...], tuple[float, ...]]) -> Expr:
    def on_range(x: Expr) -> Expr:
        quotient = let(x * x, lambda z: x * polynomial(z, fit[0]) / polynomial(z, fit[1]))
        return clamp(quotient, -1.0, 1.0)

    return let(clamp(x, -limit, limit), on_range)


def erf(x: Expr) -> Expr:
    """erf within 5e-7, relative."""
    return _rational(x, _ERF_LIMIT, _ERF)


def tanh(x: Expr) -> Expr:
    """tanh within 5e-7, relative."""
    return _rational(x, _TANH_LIMIT, _TANH)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x)) within 4 ulp, as exp(x) / (1 + exp(x)) where x < 0: exp cannot overflow."""
    negative = x < constant(0.0)
    return let(
        exp(T.Select(negative, x, constant(0.0) - x)),
        lambda e: T.Select(negative, e, constant(1.0)) / (constant(1.0) + e),
    )


BY_NAME: dict[str, Callable[[Expr], Expr]] = {
    "exp": exp,
    "erf": erf,
    "tanh": tanh,
    "sigmoid": sigmoid,
}
