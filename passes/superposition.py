"""The algebra of superposed tensors, ``X = c + sum_g s_g P_g``, over Relax expressions.

Planes are float tensors that hold signs, masks or masked signs; scales are float32 arrays that
broadcast against their plane. The functions here never touch the graph: they combine terms.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.specs import Kind

Expr = Any

ROW_TOLERANCE = 1e-4  # straight-through residue spreads a row's |w| by up to 2e-5: OTHER_ONNX


ZERO: Floats = np.zeros((), np.float32)
ONE: Floats = np.ones((), np.float32)


@dataclass(frozen=True)
class Term:
    """One plane and its scale."""

    plane: Expr
    kind: Kind
    scale: Floats


@dataclass(frozen=True)
class Superposed:
    """Sum of scaled planes and a constant."""

    terms: tuple[Term, ...]
    constant: Floats

    @property
    def is_mask_sum(self) -> bool:
        """Whether every plane is a mask, its scale at least 1, and there is no constant.

        A float times such a sum is 0 only where the float or every mask is 0: no underflow.
        """
        masks = all(t.kind is Kind.MASK and (t.scale >= 1).all() for t in self.terms)
        return masks and not self.constant.any()

    @property
    def is_linear(self) -> bool:
        """Whether the constant is zero."""
        return not self.constant.any()

    @property
    def is_finite(self) -> bool:
        """Whether every scale and the constant are finite."""
        return all(np.isfinite(x).all() for x in (self.constant, *(t.scale for t in self.terms)))


def single(plane: Expr, kind: Kind) -> Superposed:
    """One plane with scale 1."""
    return Superposed((Term(plane, kind, ONE),), ZERO)


def compact(array: Floats) -> Floats:
    """Same values with every axis along which they do not change reduced to extent 1."""
    for axis in range(array.ndim):
        first = np.take(array, [0], axis=axis)
        if (array == first).all():
            array = first
    return array.reshape(()) if array.size == 1 else array


def scaled(x: Superposed, factor: Floats, op: Callable[[Any, Any], Any]) -> Superposed:
    """``op(x, factor)`` for op multiply or divide, each scale rounded to float32."""
    terms = tuple(
        replace(t, scale=compact(op(t.scale, factor).astype(np.float32))) for t in x.terms
    )
    return Superposed(terms, compact(op(x.constant, factor).astype(np.float32)))


def added(x: Superposed, y: Superposed) -> Superposed:
    """Sum of two superposed tensors; a plane of both is one term."""
    terms = {term.plane: term for term in x.terms}
    for term in y.terms:
        if term.plane in terms:
            both = terms[term.plane].scale.astype(np.float64) + term.scale
            term = replace(term, scale=compact(both.astype(np.float32)))
        terms[term.plane] = term
    return Superposed(tuple(terms.values()), compact(x.constant + y.constant))


def shifted(x: Superposed, constant: Floats) -> Superposed:
    """``x`` plus a constant."""
    return replace(x, constant=compact((x.constant + constant).astype(np.float32)))


def sign_from_mask(x: Superposed) -> tuple[Term, Floats] | None:
    """The mask term and scale a with ``x = a * (2 m - 1)``, or None.

    This is how ``(x > 0) * 2 - 1`` and ``where(x >= 0, a, -a)`` become one sign plane.
    """
    if len(x.terms) != 1 or x.terms[0].kind is not Kind.MASK or not x.constant.any():
        return None
    scale = x.terms[0].scale
    if scale.shape != x.constant.shape or not (x.constant == -scale / 2).all():
        return None
    return x.terms[0], (scale / 2).astype(np.float32)


def scaled_complement(x: Superposed) -> tuple[Term, Floats] | None:
    """The mask term and scale a with ``x = a * (1 - m)``, or None: ``where(x < b, 0, a)``."""
    if len(x.terms) != 1 or x.terms[0].kind is not Kind.MASK or not x.constant.any():
        return None
    scale = x.terms[0].scale
    if scale.shape != x.constant.shape or not (x.constant == -scale).all():
        return None
    return x.terms[0], x.constant


@dataclass(frozen=True)
class BinaryWeight:
    """A constant (k, columns) matrix that is ``sign * scale[column]``."""

    positive: Any  # bool (k, columns)
    nonzero: Any  # bool (k, columns), or None where no element is 0
    scale: Floats  # (columns,)

    @property
    def kind(self) -> Kind:
        """SIGN, or MASKED where a weight is 0."""
        return Kind.SIGN if self.nonzero is None else Kind.MASKED


def binary_weight(matrix: Floats) -> BinaryWeight | None:
    """Two-level columns of a constant matrix, by value; None where a column has more levels.

    The scale of a column is the median of its nonzero magnitudes: exact where they are equal, and
    within ``ROW_TOLERANCE`` where a straight-through residue was folded into literal weights.
    """
    if matrix.ndim != 2 or matrix.shape[0] < 2 or not np.isfinite(matrix).all():
        return None
    magnitude = np.abs(matrix)
    nonzero = magnitude > 0
    if nonzero.all():
        low, high = magnitude.min(0), magnitude.max(0)
    else:
        low = np.where(nonzero, magnitude, np.inf).min(0)
        high = magnitude.max(0)
        low = np.where(np.isfinite(low), low, 0).astype(np.float32)
    if not (high - low <= ROW_TOLERANCE * high).all():
        return None
    if (high == low).all():
        scale = high
    else:
        # A column of zeros has scale 0, whatever the median of nothing is.
        levels = np.where(nonzero | (high == 0), magnitude, np.nan)
        scale = np.nanmedian(levels, axis=0).astype(np.float32)
    return BinaryWeight(matrix > 0, None if nonzero.all() else nonzero, scale)
