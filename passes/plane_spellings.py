"""How exporters spell signs, masks and their sums: one rule per operator.

A rule looks at one call and says what superposed tensor it is, or None. Planes are emitted as
``gsb.sign`` and ``gsb.mask`` once each, however often the graph repeats a comparison.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from tvm import relax

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.ops import dtype_of, is_call, shape_of
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, scalar
from gsb_tvm.passes.superposition import Superposed, Term
from gsb_tvm.passes.thresholds import Monotone, pull_back

_COMPARE = {
    "relax.greater": "gt",
    "relax.greater_equal": "ge",
    "relax.less": "lt",
    "relax.less_equal": "le",
}
_FLIPPED = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
_COMPLEMENT = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}
_MOST_LEVELS = 4
_HALF = np.float32(0.5)


class Planes:
    """What is known of each variable of the new block, and the planes emitted so far."""

    def __init__(self) -> None:
        self._known: dict[Any, Superposed] = {}
        self._planes: dict[Any, Expr] = {}

    def get(self, expr: Expr) -> Superposed | None:
        """What is known of ``expr``."""
        return self._known.get(expr)

    def learn(self, var: Expr, x: Superposed, graph: Graph) -> None:
        """Remember that ``var`` is ``x``; ``a (2 m - 1)`` is a sign, ``a (1 - m)`` a mask."""
        self._known[var] = self._as_mask(self._as_sign(x, graph), graph)

    def sign_plane(self, x: Expr, at_zero: int, graph: Graph) -> Expr:
        """The one sign plane of ``x`` with this rule at zero."""
        return self._plane((x, at_zero), lambda: ops.sign(x, at_zero), graph)

    def mask_plane(self, x: Expr, bound: Expr, compare: str, graph: Graph) -> Expr:
        """The one mask plane of this comparison."""
        value = scalar(bound)
        key = (x, bound if value is None else value, compare)
        return self._plane(key, lambda: ops.mask(x, bound, compare), graph)

    def _plane(self, key: Any, make: Callable[[], Expr], graph: Graph) -> Expr:
        if key not in self._planes:
            self._planes[key] = graph.emit(make())
        return self._planes[key]

    def _as_sign(self, x: Superposed, graph: Graph) -> Superposed:
        found = sp.sign_from_mask(x)
        call = graph.call(found[0].plane, "gsb.mask") if found is not None else None
        bound = scalar(call.args[1]) if call is not None else None
        if found is None or call is None or bound is None or not np.isfinite(bound):
            return x
        source, scale, compare = call.args[0], found[1], str(call.attrs["compare"])
        if compare in ("lt", "le"):  # 2 [x < b] - 1 = -(2 [x >= b] - 1)
            scale, compare = -scale, "ge" if compare == "lt" else "gt"
        if bound != 0.0:
            # x > b exactly where fl(x - b) > 0: a difference of two floats does not underflow.
            offset = relax.op.add(source, literal(-bound, "float32"))
            source = self._plane((source, "minus", bound), lambda: offset, graph)
        plane = self.sign_plane(source, 1 if compare == "ge" else -1, graph)
        return Superposed((Term(plane, Kind.SIGN, scale),), sp.ZERO)

    def _as_mask(self, x: Superposed, graph: Graph) -> Superposed:
        found = sp.scaled_complement(x)
        call = graph.call(found[0].plane, "gsb.mask") if found is not None else None
        if found is None or call is None:
            return x
        source, bound = call.args
        plane = self.mask_plane(source, bound, _COMPLEMENT[str(call.attrs["compare"])], graph)
        return Superposed((Term(plane, Kind.MASK, found[1]),), sp.ZERO)


def _condition(expr: Expr, graph: Graph) -> tuple[Expr, Expr, str] | None:
    """(x, bound, comparison) of a boolean of the shape of x; the bound is constant or smaller."""
    call = graph.call(expr, *_COMPARE)
    if call is None or dtype_of(call.args[0]) != "float32":
        return None
    x, bound = call.args
    compare = _COMPARE[call.op.name]
    if constant(x) is not None or shape_of(x) != shape_of(call):
        x, bound, compare = bound, x, _FLIPPED[compare]
    return (x, bound, compare) if shape_of(x) == shape_of(call) else None


def _sign(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    x = call.args[0]
    product = graph.call(x, "relax.multiply")
    if product is not None:
        for factor, other in (product.args, reversed(list(product.args))):
            masks = r.get(other)
            if masks is not None and masks.is_mask_sum and constant(factor) is None:
                return _masked_sign(r, factor, masks, graph)
    return sp.single(r.sign_plane(x, 0, graph), Kind.MASKED)


def _masked_sign(r: Planes, x: Expr, masks: Superposed, graph: Graph) -> Superposed:
    """sign(x * sum of masks) = sign(x) where any mask is set."""
    anywhere = masks.terms[0].plane
    for term in masks.terms[1:]:
        anywhere = graph.emit(relax.op.maximum(anywhere, term.plane))
    plane = graph.emit(relax.op.multiply(r.sign_plane(x, 0, graph), anywhere))
    return sp.single(plane, Kind.MASKED)


def _astype(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    condition = _condition(call.args[0], graph)
    if condition is None or dtype_of(call) != "float32":
        return None
    return sp.single(r.mask_plane(*condition, graph), Kind.MASK)


def _where(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    condition, yes, no = call.args
    equal = graph.call(condition, "relax.equal")
    if equal is not None:
        return _at_zero(r, equal, yes, no, graph) or _without_minus(r, equal, yes, no, graph)
    compared = _condition(condition, graph)
    high, low = constant(yes), constant(no)
    if compared is None or high is None or low is None or dtype_of(call) != "float32":
        return None
    if shape_of(compared[0]) != shape_of(call):
        return None
    plane = sp.single(r.mask_plane(*compared, graph), Kind.MASK)
    step = np.asarray(high - low, dtype=np.float32)
    return sp.shifted(sp.scaled(plane, step, np.multiply), np.asarray(low, dtype=np.float32))


def _at_zero(r: Planes, equal: Expr, yes: Expr, no: Expr, graph: Graph) -> Superposed | None:
    """where(x == 0, v, step of x at 0): v on top, below, or in the middle, which is a sign."""
    x, value, rest = equal.args[0], scalar(yes), r.get(no)
    if scalar(equal.args[1]) != 0.0 or value is None or rest is None or len(rest.terms) != 1:
        return None
    (term,) = rest.terms
    call = graph.call(term.plane, "gsb.mask")
    if call is None or call.args[0] != x or scalar(call.args[1]) != 0.0:
        return None
    if term.scale.size != 1 or rest.constant.size != 1:
        return None
    above, below = rest.constant + term.scale, rest.constant
    if str(call.attrs["compare"]) in ("lt", "le"):
        above, below = below, above
    if value == (above + below) / 2:
        sign = sp.single(r.sign_plane(x, 0, graph), Kind.MASKED)
        return sp.shifted(sp.scaled(sign, (above - below) * _HALF, np.multiply), np.asarray(value))
    if value not in (above, below):
        return None
    plane = r.mask_plane(x, call.args[1], "ge" if value == above else "gt", graph)
    mask = sp.scaled(sp.single(plane, Kind.MASK), above - below, np.multiply)
    return sp.shifted(mask, below)


def _without_minus(r: Planes, equal: Expr, yes: Expr, no: Expr, graph: Graph) -> Superposed | None:
    """where(s == -1, 0, s) of a sign s: the mask of its +1 (BiBERT's attention)."""
    known = r.get(no)
    if equal.args[0] != no or scalar(equal.args[1]) != -1.0 or scalar(yes) != 0.0:
        return None
    if known is None or len(known.terms) != 1 or not known.is_linear:
        return None
    call = graph.call(known.terms[0].plane, "gsb.sign")
    if call is None or not (known.terms[0].scale == 1).all():
        return None
    compare = "ge" if int(call.attrs["at_zero"]) > 0 else "gt"
    return sp.single(r.mask_plane(call.args[0], literal(0, "float32"), compare, graph), Kind.MASK)


def _multiply(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    for live, other in (call.args, reversed(list(call.args))):
        known, factor = r.get(live), constant(other)
        if known is not None and factor is not None and shape_of(call) == shape_of(live):
            return sp.scaled(known, factor, np.multiply)
    return None


def _divide(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    known, factor = r.get(call.args[0]), constant(call.args[1])
    if known is None or factor is None or shape_of(call) != shape_of(call.args[0]):
        return None
    return sp.scaled(known, factor, np.divide) if (factor != 0).all() else None


def _add(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    return _sum(r, call, sp.ONE)


def _subtract(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    return _sum(r, call, -sp.ONE)


def _sum(r: Planes, call: Expr, factor: Floats) -> Superposed | None:
    """Sum or difference (factor -1) of two superposed tensors of one shape, or with a constant."""
    left, right = (r.get(x) if shape_of(x) == shape_of(call) else None for x in call.args)
    if left is not None and right is not None:
        return sp.added(left, sp.scaled(right, factor, np.multiply))
    first, second = constant(call.args[0]), constant(call.args[1])
    if left is not None and second is not None:
        return sp.shifted(left, factor * second)
    if right is not None and first is not None:
        return sp.shifted(sp.scaled(right, factor, np.multiply), first)
    return None


def _levels(r: Planes, call: Expr, graph: Graph) -> Superposed | None:
    """clip(round(y), 0, n) or round(clip(y, 0, n)): a sum of n masks of y.

    Round half to even: level s is reached above s - 1/2 where s is odd, from s - 1/2 on where s is
    even. Scalar steps between y and its source are pulled back, so the mask compares the source.
    """
    inner = "relax.clip" if is_call(call, "relax.round") else "relax.round"
    other = graph.call(call.args[0], inner)
    if other is None:
        return None
    clip = call if is_call(call, "relax.clip") else other
    low, high = float(clip.args[1].value), float(clip.args[2].value)
    if low != 0 or high not in range(1, _MOST_LEVELS):
        return None
    source, steps = _scalar_steps(other.args[0], graph)
    terms: tuple[Term, ...] = ()
    for level in range(1, int(high) + 1):
        bound = pull_back(steps, level - 0.5, strict=level % 2 == 1)
        plane = r.mask_plane(source, literal(bound), "gt", graph)
        terms += sp.single(plane, Kind.MASK).terms
    return Superposed(terms, sp.ZERO)


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
RULES: Mapping[str, Callable[[Planes, Expr, Graph], Superposed | None]] = {
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
"""What each operator that spells a plane means, by its name in Relax."""
