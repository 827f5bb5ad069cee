"""Recognise the products of superposed tensors."""

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.ops import dtype_of, is_call, shape_of
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.constant_terms import bias, with_ones
from gsb_tvm.passes.plane_spellings import RULES, Planes
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, rewrite_pass
from gsb_tvm.passes.superposition import Superposed, Term
from gsb_tvm.passes.views import VIEWS, apply_view


def RecognizePlanes() -> Pass:
    """Replace products of superposed tensors by ``gsb.matmul`` over their planes.

    Before  y = matmul(multiply(sign(x), a), w)      w: constant, every column is +-m
    After   p = gsb.sign(x);  y = gsb.matmul((p), (a), (sign(w)), (m))
    and     matmul(c + x, w) becomes the product of x plus the constant c @ w; in a product of two
            live operands a constant is one more plane, of ones
    Requires   both operands superposed; scales constant along the contracted axis
    Leaves alone   a product with a float operand, with scales that change along the contracted
               axis, or with a constant of many different multiples of its scale
    Exact   integers are; the product of scales is rounded once instead of once per element
    Source   GSB, arXiv 2305.07931, eq. for superposed attention and values; the algebra is in
             docs/architecture.md
    """
    return rewrite_pass("RecognizePlanes", lambda: _Recognizer().visit)


class _Recognizer:
    """Abstract interpretation: what is known of each variable of the new block."""

    def __init__(self) -> None:
        self._planes = Planes()

    def visit(self, var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
        """Learn what ``value`` is; rewrite it if it is a product."""
        if is_call(value, "relax.matmul"):
            return self._matmul(var, value, graph)
        learned = self._learn(value, graph)
        if learned is None:
            return None
        bound = graph.emit(value, var.name)
        self._planes.learn(bound, learned, graph)
        return bound

    def _learn(self, value: Expr, graph: Graph) -> Superposed | None:
        if isinstance(value, relax.TupleGetItem):
            return self._view(graph.producer(value.tuple_value), graph, value.index)
        if not isinstance(value, relax.Call):
            return None
        name = getattr(value.op, "name", "")
        if name in VIEWS:
            return None if name == "relax.split" else self._view(value, graph, 0)
        rule = RULES.get(name)
        return rule(self._planes, value, graph) if rule else None

    def _view(self, call: Expr, graph: Graph, item: int) -> Superposed | None:
        if not any(is_call(call, name) for name in VIEWS):
            return None
        x = self._planes.get(call.args[0])
        if x is None:
            return None
        shape = shape_of(call.args[0])

        def moved(array: Floats) -> Floats:
            if array.size == 1:
                return array
            viewed = apply_view(call, np.broadcast_to(array, shape), item)
            return sp.compact(viewed)

        terms = []
        for term in x.terms:
            plane = graph.emit(relax.Call(call.op, [term.plane, *call.args[1:]], call.attrs))
            if is_call(call, "relax.split"):
                plane = graph.emit(relax.TupleGetItem(plane, item))
            terms.append(Term(plane, term.kind, moved(term.scale)))
        return Superposed(tuple(terms), moved(x.constant))

    def _matmul(self, var: relax.Var, call: Expr, graph: Graph) -> Expr | None:
        if any(dtype_of(arg) != "float32" or len(shape_of(arg)) < 2 for arg in call.args):
            return None
        left, right = call.args
        a, matrix = self._operand(left), constant(right)
        if a is None or matrix is None:
            b = self._operand(right)
            return None if a is None or b is None else self._product(call, a, b, graph)
        weight = sp.binary_weight(matrix)
        if weight is None or not a.terms:
            return None
        y = _linear(Superposed(a.terms, sp.ZERO), _weight_planes(weight))
        if y is None or a.is_linear:
            return y
        return relax.op.add(graph.emit(y, var.name), literal(bias(a, weight)))

    def _product(self, call: Expr, a: Superposed, b: Superposed, graph: Graph) -> Expr | None:
        """Product with a live right operand."""
        left = with_ones(a, shape_of(call.args[0]), graph)
        right = with_ones(b, shape_of(call.args[1]), graph)
        return None if left is None or right is None else _linear(left, right)

    def _operand(self, arg: Expr) -> Superposed | None:
        array = constant(arg)
        if array is None:
            known = self._planes.get(arg)
            return known if known is not None and known.is_finite else None
        weight = sp.binary_weight(array)
        return None if weight is None else _weight_planes(weight)


def _weight_planes(weight: sp.BinaryWeight) -> Superposed:
    """A binary weight as a superposed tensor of constants."""
    plane = np.where(weight.positive, np.float32(1), np.float32(-1))
    if weight.nonzero is not None:
        plane = plane * weight.nonzero
    scale = sp.compact(weight.scale[None, :])
    return Superposed((Term(literal(plane.astype(np.float32)), weight.kind, scale),), sp.ZERO)


def _linear(a: Superposed, b: Superposed) -> Expr | None:
    """Product of two superposed tensors without constant terms."""
    if any(_varies(t.scale, -1) for t in a.terms) or any(_varies(t.scale, -2) for t in b.terms):
        return None
    return ops.matmul(
        [t.plane for t in a.terms],
        [literal(t.scale) for t in a.terms],
        [t.plane for t in b.terms],
        [literal(t.scale) for t in b.terms],
    )


def _varies(scale: Floats, axis: int) -> bool:
    """Whether ``scale`` changes along ``axis`` (negative)."""
    return scale.ndim >= -axis and scale.shape[axis] != 1
