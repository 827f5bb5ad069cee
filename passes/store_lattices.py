"""Store large constants whose values are small integers times a scale as int8."""

from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.ops import is_call
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, rewrite_pass

SMALLEST = 1 << 12  # elements; below, the bytes saved do not pay for the multiply
_USERS = ("relax.matmul", "relax.nn.conv2d")


def StoreLattices() -> Pass:
    """Replace a constant weight by ``astype(int8) * scale`` where that gives the same floats.

    Before  y = conv2d(x, w)     w float32, every value q * a for an integer q in [-128, 127]
    After   y = conv2d(x, multiply(astype(q, float32), a))     a scalar, or one per axis 0 or -1
    Requires   bit-identical values after one float32 multiplication
    Leaves alone   small constants, constants with more levels
    Exact   yes, by comparison of every element
    Source   8-bit first and last layers, arXiv 2305.07931; LSQ
    """
    return rewrite_pass("StoreLattices", lambda: lambda _var, value, g: _store(value, g))


def _store(value: Expr, graph: Graph) -> Expr | None:
    if not any(is_call(value, name) for name in _USERS):
        return None
    args = list(value.args)
    for i, arg in enumerate(args):
        array = constant(arg)
        if array is None or array.dtype != np.float32 or array.size < SMALLEST:
            continue
        found = lattice(array)
        if found is None:
            continue
        levels, scale = found
        wide = graph.emit(relax.op.astype(literal(levels), "float32"))
        args[i] = graph.emit(relax.op.multiply(wide, literal(scale)))
        return relax.Call(value.op, args, value.attrs)
    return None


def lattice(array: Floats) -> tuple[npt.NDArray[np.int8], Floats] | None:
    """(levels, scale) with ``levels * scale == array`` bit for bit, or None.

    The scale is one number, or one per slice of axis 0 or of the last axis.
    """
    axes: list[tuple[int, ...]] = [
        tuple(range(array.ndim)),
        tuple(range(1, array.ndim)),
        tuple(range(array.ndim - 1)),
    ]
    for reduced in axes:
        scale = _scale(array, reduced)
        if scale is None:
            continue
        levels = np.rint(array / scale)
        if (levels.astype(np.float32) * scale == array).all() and _fits_int8(levels).all():
            return levels.astype(np.int8), scale
    return None


def _fits_int8(levels: Floats) -> npt.NDArray[np.bool_]:
    return (levels >= -128) & (levels <= 127)


def _scale(array: Floats, reduced: tuple[int, ...]) -> Floats | None:
    """The step of the lattice: the smallest magnitude divided by a small integer, by trial."""
    magnitude = np.abs(array)
    smallest = np.where(magnitude > 0, magnitude, np.inf).min(reduced, keepdims=True)
    largest = magnitude.max(reduced, keepdims=True)
    if not np.isfinite(smallest).all() or (largest > 128 * smallest * 64).any():
        return None
    best: Any = None
    open_ = np.ones(smallest.shape, dtype=bool)
    for divisor in range(1, 65):
        candidate = _refine(array, magnitude, (smallest / divisor).astype(np.float32), reduced)
        levels = np.rint(array / candidate)
        fits = (levels.astype(np.float32) * candidate == array).all(reduced, keepdims=True)
        fits &= _fits_int8(levels).all(reduced, keepdims=True)
        best = candidate if best is None else np.where(open_ & fits, candidate, best)
        open_ &= ~fits
        if not open_.any():
            return best.astype(np.float32)
    return None


def _refine(array: Floats, magnitude: Floats, step: Floats, reduced: tuple[int, ...]) -> Floats:
    """The exact step: magnitudes at powers of two are the step itself, scaled without rounding."""
    levels = np.rint(magnitude / step)
    mantissa, _ = np.frexp(levels)
    exact = (mantissa == 0.5) & (levels > 0)
    candidates = np.where(exact, magnitude / np.maximum(levels, 1), np.inf)
    refined = candidates.min(reduced, keepdims=True)
    return np.where(np.isfinite(refined), refined, step).astype(np.float32)
