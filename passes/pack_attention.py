"""Turn products of two live superposed tensors into packed attention."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats, Rows
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    Compare,
    Kind,
    ValuePlanes,
    spread_of,
)
from gsb_tvm.passes.attention_scores import match_scores
from gsb_tvm.passes.packing import (
    binarize,
    plane_source,
    plane_tensors,
    sign_by_token,
    strict_bound,
)
from gsb_tvm.passes.rewriting import (
    Expr,
    Graph,
    constant,
    literal,
    operand_pair,
    payload,
    rewrite_pass,
)


def PackAttention() -> Pass:
    """Replace softmax attention over superposed planes by three packed operators.

    Before  p = softmax(gsb.matmul(q, k) * f) + bias;  o = gsb.matmul(masks of p, planes of v)
    After   m = gsb.attention_planes(q, k, bias);  o = gsb.attention_value(m, gsb.value_planes(v))
    Requires   q, k single sign planes with scalar scales; masks of p: one constant bound, then
               bounds ratio * max(p); v one sign plane and masks of it at ratio * max(v),
               ratio * min(v); scales scalar or per head
    Leaves alone   anything else, keys turned before their sign too: PackMatmul packs it operator by
                   operator
    Exact   integers are; float steps keep their order, softmax sums may not
    Source   GSB, arXiv 2305.07931, superposed attention and values
    """
    return rewrite_pass("PackAttention", lambda: lambda _var, value, g: _pack(value, g))


def _pack(value: Expr, graph: Graph) -> Expr | None:
    if not is_call(value, "gsb.matmul"):
        return None
    planes, scales, values, value_scales = (list(part.fields) for part in value.args)
    shape = shape_of(value)
    if len(shape) != 4 or any(constant(v) is not None for v in values):
        return None
    batch, heads, tokens, width = shape
    rows = Rows(batch, tokens, heads, width)
    attention = _attention(planes, rows, graph)
    if attention is None:
        return None
    masks, order = attention
    superposed = _values(values, rows, graph)
    p_scale = _by_head([scales[i] for i in order], heads)
    if superposed is None or p_scale is None:
        return None
    v_scale = _by_head([value_scales[i] for i in superposed.order], heads)
    if v_scale is None:
        return None
    spec = AttentionValue(
        rows, superposed.kind, len(planes), len(values), shift=False, compare=None
    )
    args = [masks, *superposed.tensors, literal(p_scale), literal(v_scale)]
    o = graph.emit(ops.packed(spec, args))
    by_head = graph.emit(relax.op.reshape(o, (batch, tokens, heads, width)))
    return relax.op.permute_dims(by_head, [0, 2, 1, 3])


def _by_head(scales: list[Expr], heads: int) -> Floats | None:
    """Scales as (planes, heads), or None where one depends on rows or channels."""
    out = np.zeros((len(scales), heads), dtype=np.float32)
    for i, scale in enumerate(scales):
        array = payload(scale)
        if array.size == 1:
            out[i] = array.reshape(())
        elif array.size == heads and array.ndim >= 3 and array.shape[-3] == heads:
            out[i] = array.reshape(heads)
        else:
            return None
    return out


def _attention(planes: list[Expr], rows: Rows, graph: Graph) -> tuple[Expr, list[int]] | None:
    """Emit ``gsb.attention_planes``; its masks and which plane each one is."""
    calls = [graph.call(plane, "gsb.mask") for plane in planes]
    if any(call is None or call.args[0] != calls[0].args[0] for call in calls):
        return None
    p = calls[0].args[0]
    sources = [plane_source(plane, graph) for plane in planes]
    fixed = [i for i, source in enumerate(sources) if source is not None]
    if len(fixed) != 1:
        return None
    moving = [i for i in range(len(planes)) if i != fixed[0]]
    ratios = [_extreme_ratio(calls[i], p, "relax.max", "gt", graph) for i in moving]
    base = sources[fixed[0]]
    if base is None or any(ratio is None for ratio in ratios):
        return None
    scores = match_scores(p, rows, graph)
    if scores is None or not np.isfinite(scores.total):
        return None
    compare = strict_bound(base.compare)
    spec = AttentionPlanes(
        scores.rows,
        scores.query.compare.kind,
        scores.key.compare.kind,
        1 if scores.factor is None else 2,
        scores.total > 0,
        spread_of(scores.rows.width, scores.total),
        scores.bias is not None,
        compare.strict,
        tuple(float(r) for r in ratios if r is not None),
    )
    tensors = [
        *binarize(scores.query, scores.query.x, scores.rows, graph),
        *binarize(scores.key, scores.key.x, scores.rows, graph),
    ]
    factor = 1.0 if scores.factor is None else scores.factor
    tensors.append(literal([scores.scale, factor, compare.bound], "float32"))
    if scores.bias is not None:
        tensors.append(literal(scores.bias))
    return graph.emit(ops.packed(spec, tensors), scores.name), [fixed[0], *moving]


def _extreme_ratio(call: Expr, x: Expr, extreme: str, compare: str, graph: Graph) -> float | None:
    """Ratio r of a mask ``x compare r * extreme(x)`` over all elements, or None."""
    if call is None or str(call.attrs["compare"]) != compare or call.args[0] != x:
        return None
    product = graph.call(call.args[1], "relax.multiply")
    pair = operand_pair(product) if product is not None else None
    if pair is None or pair[1].size != 1:
        return None
    reduced = graph.call(pair[0], extreme)
    if reduced is None or reduced.args[0] != x or np.prod(shape_of(reduced)) != 1:
        return None
    ratio = float(pair[1].reshape(()))
    return ratio if 0 < ratio <= 1 else None


@dataclass(frozen=True)
class _Values:
    kind: Kind
    tensors: list[Expr]
    order: list[int]


def _values(planes: list[Expr], rows: Rows, graph: Graph) -> _Values | None:
    """Emit the value planes; the sign plane is the one that is not a product."""
    products = {i: graph.call(plane, "relax.multiply") for i, plane in enumerate(planes)}
    base = [i for i, call in products.items() if call is None]
    if len(base) != 1:
        return None
    masked = [i for i in products if i != base[0]]
    source = sign_by_token(planes[base[0]], rows, graph, transposed=False)
    if source is None:
        return None
    if not masked:
        tensors = binarize(source, source.x, rows, graph)
        return _Values(source.compare.kind, tensors, base)
    ratios = [_value_ratio(products[i], planes[base[0]], graph) for i in masked]
    if any(r is None for r in ratios) or source.compare != Compare(Kind.MASKED):
        return None
    exact = tuple(float(r) for r in ratios if r is not None)
    spec = ValuePlanes(rows, source.compare.kind, shift=False, ratios=exact)
    out = graph.emit(ops.packed(spec, [source.x]))
    tensors = plane_tensors(out, spec.kind, graph)
    tensors.append(graph.emit(relax.TupleGetItem(out, len(tensors))))
    return _Values(spec.kind, tensors, [base[0], *masked])


def _value_ratio(product: Any, base: Expr, graph: Graph) -> float | None:
    """Ratio r of ``sign(u) * max([u > r max(u)], [u < r min(u)])``."""
    sign = graph.call(base, "gsb.sign")
    if sign is None or product.args[0] != base:
        return None
    either = graph.call(product.args[1], "relax.maximum")
    if either is None:
        return None
    u = sign.args[0]
    masks = [graph.call(arg, "gsb.mask") for arg in either.args]
    for high, low in (masks, masks[::-1]):
        above = _extreme_ratio(high, u, "relax.max", "gt", graph)
        below = _extreme_ratio(low, u, "relax.min", "lt", graph)
        if above is not None and above == below:
            return above
    return None
