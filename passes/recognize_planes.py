"""Recognise signs, masks and their superpositions, and the products between them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.ops import dtype_of, is_call, shape_of
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, rewrite_pass, scalar
from gsb_tvm.passes.superposition import Superposed, Term
from gsb_tvm.passes.thresholds import Monotone, pull_back
from gsb_tvm.passes.views import VIEWS, apply_view

_COMPARE = {
    "relax.greater": "gt",
    "relax.greater_equal": "ge",
    "relax.less": "lt",
    "relax.less_equal": "le",
}
_FLIPPED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
_MOST_LEVELS = 4


def RecognizePlanes() -> Pass:
    """Replace products of superposed tensors by ``gsb.matmul`` over their planes.

    Before  y = matmul(multiply(sign(x), a), w)      w: constant, every column is +-m
    After   p = gsb.sign(x);  y = gsb.matmul((p), (a), (sign(w)), (m))
    Requires   both operands superposed with no constant term; scales constant along the
               contracted axis
    Leaves alone   a product with a float operand, with an affine operand, or with scales that
               change along the contracted axis
    Exact   integers are; the product of scales is rounded once instead of once per element
    Source   GSB, arXiv 2305.07931, eq. for superposed attention and values; the algebra is in
             docs/architecture.md
    """
    return rewrite_pass("RecognizePlanes", lambda: _Recognizer().visit)


class _Recognizer:
    """Abstract interpretation: what is known of each variable of the new block."""

    def __init__(self) -> None:
        self._known: dict[Any, Superposed] = {}
        self._planes: dict[Any, Expr] = {}

    def visit(self, var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
        """Learn what ``value`` is; rewrite it if it is a product."""
        if is_call(value, "relax.matmul"):
            return self._matmul(value)
        learned = self._learn(value, graph)
        if learned is None:
            return None
        bound = graph.emit(value, var.name)
        self._known[bound] = self._as_sign(learned, graph)
        return bound

    def _learn(self, value: Expr, graph: Graph) -> Superposed | None:
        if isinstance(value, relax.TupleGetItem):
            return self._view(graph.producer(value.tuple_value), graph, value.index)
        if not isinstance(value, relax.Call):
            return None
        name = getattr(value.op, "name", "")
        if name in VIEWS:
            return None if name == "relax.split" else self._view(value, graph, 0)
        rule = _RULES.get(name)
        return rule(self, value, graph) if rule else None

    def _plane(self, key: Any, make: Callable[[], Expr], graph: Graph) -> Expr:
        if key not in self._planes:
            self._planes[key] = graph.emit(make())
        return self._planes[key]

    def sign_plane(self, x: Expr, at_zero: int, graph: Graph) -> Expr:
        """The one sign plane of ``x`` with this rule at zero."""
        return self._plane((x, at_zero), lambda: ops.sign(x, at_zero), graph)

    def mask_plane(self, x: Expr, bound: Expr, compare: str, graph: Graph) -> Expr:
        """The one mask plane of this comparison."""
        value = scalar(bound)
        key = (x, bound if value is None else value, compare)
        return self._plane(key, lambda: ops.mask(x, bound, compare), graph)

    def get(self, expr: Expr) -> Superposed | None:
        """What is known of ``expr``."""
        return self._known.get(expr)

    def condition(self, expr: Expr, graph: Graph) -> tuple[Expr, Expr, str] | None:
        """(x, bound, comparison) of a boolean, the constant or smaller operand as bound."""
        call = graph.call(expr, *_COMPARE)
        if call is None:
            return None
        x, bound = call.args
        compare = _COMPARE[call.op.name]
        if constant(x) is not None or len(shape_of(x)) < len(shape_of(bound)):
            return bound, x, _FLIPPED[compare]
        return x, bound, compare

    def _as_sign(self, x: Superposed, graph: Graph) -> Superposed:
        found = sp.sign_from_mask(x)
        if found is None:
            return x
        term, scale = found
        call = graph.call(term.plane, "gsb.mask")
        if call is None or scalar(call.args[1]) != 0.0:
            return x
        at_zero = {"gt": -1, "ge": 1}.get(str(call.attrs["compare"]))
        if at_zero is None:
            return x
        plane = self.sign_plane(call.args[0], at_zero, graph)
        return Superposed((Term(plane, Kind.SIGN, scale),), sp.ZERO)

    def _view(self, call: Expr, graph: Graph, item: int) -> Superposed | None:
        if not any(is_call(call, name) for name in VIEWS):
            return None
        x = self.get(call.args[0])
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

    def _matmul(self, call: Expr) -> Expr | None:
        if any(dtype_of(arg) != "float32" for arg in call.args):
            return None
        a, b = (self._operand(arg) for arg in call.args)
        if a is None or b is None or not (a.is_linear and b.is_linear):
            return None
        rank_a, rank_b = (len(shape_of(arg)) for arg in call.args)
        if any(_varies(t.scale, rank_a, -1) for t in a.terms):
            return None
        if any(_varies(t.scale, rank_b, -2) for t in b.terms):
            return None
        return ops.matmul(
            [t.plane for t in a.terms],
            [literal(t.scale) for t in a.terms],
            [t.plane for t in b.terms],
            [literal(t.scale) for t in b.terms],
        )

    def _operand(self, arg: Expr) -> Superposed | None:
        array = constant(arg)
        if array is None:
            return self.get(arg)
        weight = sp.binary_weight(array)
        if weight is None:
            return None
        plane = np.where(weight.positive, np.float32(1), np.float32(-1))
        if weight.nonzero is not None:
            plane = plane * weight.nonzero
        scale = sp.compact(weight.scale[None, :])
        term = Term(literal(plane.astype(np.float32)), weight.kind, scale)
        return Superposed((term,), sp.ZERO)


def _varies(scale: Floats, rank: int, axis: int) -> bool:
    """Whether ``scale`` changes along ``axis`` (negative) of a plane of that rank."""
    return scale.ndim >= -axis and rank >= -axis and scale.shape[axis] != 1


def _sign(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    x = call.args[0]
    product = graph.call(x, "relax.multiply")
    if product is not None:
        for factor, other in (product.args, reversed(list(product.args))):
            masks = r.get(other)
            if masks is not None and masks.is_mask_sum:
                return _masked_sign(r, factor, masks, graph)
    return sp.single(r.sign_plane(x, 0, graph), Kind.MASKED)


def _masked_sign(r: _Recognizer, x: Expr, masks: Superposed, graph: Graph) -> Superposed:
    """sign(x * sum of masks) = sign(x) where any mask is set."""
    anywhere = masks.terms[0].plane
    for term in masks.terms[1:]:
        anywhere = graph.emit(relax.op.maximum(anywhere, term.plane))
    plane = graph.emit(relax.op.multiply(r.sign_plane(x, 0, graph), anywhere))
    return sp.single(plane, Kind.MASKED)


def _astype(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    condition = r.condition(call.args[0], graph)
    if condition is None or dtype_of(call) != "float32":
        return None
    return sp.single(r.mask_plane(*condition, graph), Kind.MASK)


def _where(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    condition, yes, no = call.args
    equal = graph.call(condition, "relax.equal")
    if equal is not None:
        return _heaviside(r, equal, yes, no, graph)
    compared = r.condition(condition, graph)
    high, low = constant(yes), constant(no)
    if compared is None or high is None or low is None or dtype_of(call) != "float32":
        return None
    plane = sp.single(r.mask_plane(*compared, graph), Kind.MASK)
    step = np.asarray(high - low, dtype=np.float32)
    return sp.shifted(sp.scaled(plane, step, np.multiply), np.asarray(low, dtype=np.float32))


def _heaviside(r: _Recognizer, equal: Expr, yes: Expr, no: Expr, graph: Graph) -> Superposed | None:
    """where(x == 0, v, [x > 0]): v decides whether the comparison is strict."""
    x, value, rest = equal.args[0], scalar(yes), r.get(no)
    if scalar(equal.args[1]) != 0.0 or value not in (0.0, 1.0) or rest is None:
        return None
    call = graph.call(rest.terms[0].plane, "gsb.mask") if len(rest.terms) == 1 else None
    if call is None or call.args[0] != x or scalar(call.args[1]) != 0.0:
        return None
    if str(call.attrs["compare"]) not in ("gt", "ge") or not rest.is_linear:
        return None
    if not (rest.terms[0].scale == 1).all():
        return None
    return sp.single(r.mask_plane(x, call.args[1], "ge" if value else "gt", graph), Kind.MASK)


def _multiply(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    for live, other in (call.args, reversed(list(call.args))):
        known, factor = r.get(live), constant(other)
        if known is not None and factor is not None and shape_of(call) == shape_of(live):
            return sp.scaled(known, factor, np.multiply)
    return None


def _divide(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    known, factor = r.get(call.args[0]), constant(call.args[1])
    if known is None or factor is None or shape_of(call) != shape_of(call.args[0]):
        return None
    return sp.scaled(known, factor, np.divide) if (factor != 0).all() else None


def _add(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    return _sum(r, call, sp.ONE)


def _subtract(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    return _sum(r, call, -sp.ONE)


def _sum(r: _Recognizer, call: Expr, factor: Floats) -> Superposed | None:
    left, right = r.get(call.args[0]), r.get(call.args[1])
    if left is not None and right is not None:
        return sp.added(left, sp.scaled(right, factor, np.multiply))
    first, second = constant(call.args[0]), constant(call.args[1])
    if left is not None and second is not None and shape_of(call) == shape_of(call.args[0]):
        return sp.shifted(left, factor * second)
    if right is not None and first is not None and shape_of(call) == shape_of(call.args[1]):
        return sp.shifted(sp.scaled(right, factor, np.multiply), first)
    return None


def _levels(r: _Recognizer, call: Expr, graph: Graph) -> Superposed | None:
    """clip(round(y), 0, n) or round(clip(y, 0, n)): a sum of n masks of y.

    Round half to even: level s is reached above s - 1/2 where s is odd, from s - 1/2 on where s is
    even. Scalar steps between y and its source are pulled back, so the mask compares the source.
    """
    inner = "relax.clip" if is_call(call, "relax.round") else "relax.round"
    other = graph.call(call.args[0], inner)
    if other is None:
        return None
    clip = call if is_call(call, "relax.clip") else other
    low, high = _clip_bounds(clip)
    if low != 0 or high not in range(1, _MOST_LEVELS):
        return None
    source, steps = _scalar_steps(other.args[0], graph)
    terms: tuple[Term, ...] = ()
    for level in range(1, int(high) + 1):
        bound = pull_back(steps, level - 0.5, strict=level % 2 == 1)
        plane = r.mask_plane(source, literal(bound), "gt", graph)
        terms += sp.single(plane, Kind.MASK).terms
    return Superposed(terms, sp.ZERO)


def _clip_bounds(clip: Expr) -> tuple[float, float]:
    return float(clip.args[1].value), float(clip.args[2].value)


def _scalar_steps(expr: Expr, graph: Graph) -> tuple[Expr, list[Monotone]]:
    """The value from which ``expr`` is reached by non-decreasing steps with scalar constants."""
    steps: list[Monotone] = []
    while True:
        call = graph.call(expr, *_STEPS)
        value = scalar(call.args[1]) if call is not None else None
        if call is None or value is None or shape_of(call) != shape_of(call.args[0]):
            break
        step = _STEPS[call.op.name]
        if call.op.name in ("relax.multiply", "relax.divide") and not value > 0:
            break
        steps.append(partial(_apply, step, np.float32(value)))
        expr = call.args[0]
    return expr, steps[::-1]


def _apply(step: Callable[[Any, Any], Any], value: np.float32, x: Floats) -> Floats:
    return step(x, value)


_STEPS: Mapping[str, Callable[[Any, Any], Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
}
_RULES: Mapping[str, Callable[[_Recognizer, Expr, Graph], Superposed | None]] = {
    "relax.sign": _sign,
    "relax.astype": _astype,
    "relax.where": _where,
    "relax.multiply": _multiply,
    "relax.divide": _divide,
    "relax.add": _add,
    "relax.subtract": _subtract,
    "relax.clip": _levels,
    "relax.round": _levels,
}
