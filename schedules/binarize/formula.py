"""Arithmetic and phases that the binarize kernels have in common."""

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Compare, Kind
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.vector import Buffer, Expr, bind, local, put, rounded, splat

# Between these deviations neither the reciprocal nor the quotient leaves the normal numbers.
DEVIATION_LOW = 2.0**-60
DEVIATION_HIGH = 2.0**60


def affine(quotient: Expr, gamma: Expr | None, beta: Expr | None, shift: Expr | None) -> Expr:
    """``quotient * gamma + beta + shift``, each step rounded; without gamma only the shift."""
    u = quotient
    if gamma is not None:
        u = rounded(u * gamma) + beta
    return u if shift is None else u + shift


def fused(a: Expr, b: Expr, c: Expr) -> Expr:
    """``a * b + c`` rounded once."""
    return tirx.call_llvm_pure_intrin(a.ty.dtype, "llvm.fma", a, b, c)


def quotient(x: Expr, negative: Expr, reciprocal: Expr) -> Expr:
    """``x / s`` rounded to nearest, from ``-s`` and the correctly rounded ``1 / s``.

    Markstein, Computation of elementary functions on the IBM RISC System/6000 processor, IBM
    Journal 34(1), 1990: q = x y, then q + (x - q s) y with both sums fused. Holds while the
    residual does not underflow: for ``s`` from DEVIATION_LOW to DEVIATION_HIGH and |x| >= 2**-100
    or x = 0; below, the quotient (under 2**-40) may differ in its last place, never in its sign.
    The theorem asks for q within one unit of the last place, a product with y may be off by 1.5:
    for the 3000 divisors with the worst of 512 reciprocals each, every significand of x was tried
    (2.5e10 quotients) and none came out wrong.
    """
    q = bind(rounded(x * reciprocal))
    return fused(fused(q, negative, x), reciprocal, q)


class Emitter:
    """Compares, packs and stores words of one plane for one part, and tells of its zeros."""

    def __init__(self, compare: Compare, outputs: dict[str, Buffer]) -> None:
        self.masked = compare.kind is Kind.MASKED  # whether zeros are told apart
        self._compare = compare
        self._outputs = outputs
        self._missing = local((1,), "uint32")
        put(self._missing, tirx.const(0, "uint32"), 0)

    def masks(self, u: Expr, lanes: int = 1) -> list[Expr]:
        """``u`` against the bound and, where zeros count, ``u != 0`` (false for NaN)."""

        def const(value: float) -> Expr:
            return tirx.const(value, "float32") if lanes == 1 else splat(value, lanes)

        bound = const(self._compare.bound)
        above = u > bound if self._compare.strict else u >= bound
        if not self.masked:
            return [above]
        zero = const(0.0)
        return [above, T.Or(u > zero, u < zero)]

    def store(self, words: list[Expr], full: int, *index: Expr) -> None:
        """Write one word of each of :meth:`masks`; ``full`` has the bits that hold elements."""
        if not self.masked:
            put(self._outputs["out_bits"], words[0], *index)
            return
        bits, nonzero = words[0], bind(words[1])
        put(self._outputs["out_bits"], bits & nonzero, *index)
        put(self._outputs["out_nonzero"], nonzero, *index)
        put(self._missing, self._missing[0] | (nonzero ^ tirx.const(full, "uint32")), 0)

    def finish(self, share: Share, zeros: Flag | None) -> None:
        """Say whether any element of the part was zero."""
        if zeros is not None:
            zeros.put(share, self._missing[0])


def shared(compare: Compare, outputs: dict[str, Buffer], emit: Callable[..., None]) -> None:
    """The phases of a binarize kernel; ``emit(emitter, share)`` writes a part's tokens."""
    zeros = Flag(outputs["out_zeros"]) if compare.kind is Kind.MASKED else None
    with phase() as share:
        emitter = Emitter(compare, outputs)
        emit(emitter, share)
        emitter.finish(share, zeros)
    if zeros is not None:
        zeros.write()


def named(spec: Any, buffers: tuple[Buffer, ...]) -> dict[str, Buffer]:
    """Buffers of a kernel by the names of its spec."""
    names = [name for name, _, _ in (*spec.inputs(), *spec.outputs())]
    return dict(zip(names, buffers, strict=True))
