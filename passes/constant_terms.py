"""Constant terms of superposed operands: more planes, or a bias.

A constant of an operand of a product with weights adds ``c @ W``, which is known. In a product of
two live operands it is a plane of ones: ``a (s - z) = a s - a z 1``, as Bi-ViT's attention has it.
Where z changes from head to head there is one plane for each value of z, so that scales stay small
integers times what a head has in common, and sums that cancel stay exactly 0.
"""

import numpy as np
from tvm import relax

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.rewriting import Graph, literal
from gsb_tvm.passes.superposition import BinaryWeight, Superposed, Term

_MOST_VALUES = 4
_INTEGER_TOLERANCE = 1e-6


def bias(x: Superposed, weight: BinaryWeight) -> Floats:
    """What the constant term of ``x`` adds to ``x @ weight``: summed in float64, rounded once."""
    signs = np.where(weight.positive, 1.0, -1.0)
    if weight.nonzero is not None:
        signs *= weight.nonzero
    contracted = signs.shape[0]
    constant = np.broadcast_to(x.constant, np.broadcast_shapes(x.constant.shape, (contracted,)))
    return (constant.astype(np.float64) @ (signs * weight.scale)).astype(np.float32)


def with_ones(x: Superposed, shape: tuple[int, ...], graph: Graph) -> Superposed | None:
    """``x`` with its constant term as planes of ones, of this shape; None where it takes many."""
    if x.is_linear:
        return x
    base = x.terms[0].scale if x.terms else sp.ONE
    terms = _terms(base, x.constant)
    if terms is None:
        return None
    made = []
    for scale, where in terms:
        ones = graph.emit(relax.op.broadcast_to(literal(where, "float32"), shape))
        plane = graph.emit(ops.mask(ones, literal(0.5, "float32"), "gt"))
        made.append(Term(plane, Kind.MASK, scale))
    return Superposed((*x.terms, *made), sp.ZERO)


def _terms(base: Floats, constant: Floats) -> list[tuple[Floats, Floats]] | None:
    """Scales and masks that add up to the constant: integers times ``base`` where that is exact."""
    if (base == 0).any():
        return None
    ratio = constant.astype(np.float64) / base
    nearest = np.rint(ratio)
    ratio = np.where(np.abs(ratio - nearest) < _INTEGER_TOLERANCE, nearest, ratio)
    ratio = np.asarray(ratio, np.float32)
    values = [value for value in np.unique(ratio) if value != 0]
    if len(values) > _MOST_VALUES:
        return None
    if (base * ratio != constant).any():
        return [(constant, sp.ONE)] if constant.size == 1 else None
    return [(sp.compact(base * value), sp.compact(ratio == value)) for value in values]
