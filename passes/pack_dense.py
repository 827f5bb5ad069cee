"""Turn products with binary constant weights into packed dense layers."""

from dataclasses import replace
from typing import Any

from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows, pack_weight
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.dialect.specs import Dense, Kind, Step
from gsb_tvm.passes.packing import (
    binarize,
    column_vector,
    own_source,
    plane_source,
    product_scale,
    step_operand,
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
from gsb_tvm.passes.views import view_source
from gsb_tvm.schedules import dense
from gsb_tvm.targets import Profile


def PackDense(profile: Profile) -> Pass:
    """Replace ``gsb.matmul`` with constant weight planes by binarize and packed dense layers.

    Before  y = gsb.matmul((p...), (s...), (w...), (t...))     w constant (k, columns)
    After   y = sum over pairs of gsb.dense(gsb.binarize(source of p), packed w; mul s t)
    Requires   activation (tokens, k) or (batch, tokens, k); activation scales scalar, weight
               scales per column
    Leaves alone   products of two live tensors, activation scales per token
    Exact   integers are; each pair's scale is rounded once
    Source   GSB, arXiv 2305.07931, binary linear layer; XNOR-popcount identity
    """
    tile = dense.column_tile(profile)
    return rewrite_pass("PackDense", lambda: lambda _var, value, g: _pack(value, g, tile))


def _pack(value: Expr, graph: Graph, tile: int) -> Expr | None:
    if not is_call(value, "gsb.matmul"):
        return None
    planes, scales, weights, weight_scales = (list(part.fields) for part in value.args)
    shape = shape_of(planes[0])
    if any(constant(w) is None for w in weights) or len(shape) not in (2, 3):
        return None
    columns = shape_of(value)[-1]
    pair_scales = [[product_scale(s, t) for t in weight_scales] for s in scales]
    vectors = [[column_vector(s, columns) for s in row] for row in pair_scales]
    if any(v is None for row in vectors for v in row):
        return None
    sources = [plane_source(plane, graph) or own_source(plane, graph) for plane in planes]
    batch, tokens = (1, shape[0]) if len(shape) == 2 else shape[:2]
    total: Expr = None
    for source, row in zip(sources, vectors, strict=True):
        rows = _rows(source.x, batch, tokens, shape[-1], graph)
        x = source.x
        if len(shape) == 2:
            x = graph.emit(relax.op.reshape(x, (batch, tokens, shape[-1])))
        tensors = binarize(source, x, rows, graph)
        for weight, vector in zip(weights, row, strict=True):
            y = _dense(source.compare.kind, tensors, weight, vector, rows, tile)
            total = (
                graph.emit(y) if total is None else graph.emit(relax.op.add(total, graph.emit(y)))
            )
    return total if len(shape) == 3 else relax.op.reshape(total, (tokens, columns))


def _rows(x: Expr, batch: int, tokens: int, features: int, graph: Graph) -> Rows:
    """Groups follow the heads where the activation is attention's output, so that bits agree."""
    pair = operand_pair(graph.producer(x)) if graph.call(x, "relax.add") is not None else None
    _, calls = view_source(x if pair is None else pair[0], graph)
    for call, _ in reversed(calls):
        if is_call(call, "relax.split"):
            continue
        shape = shape_of(call)
        if len(shape) == 4 and shape[:2] == (batch, tokens) and shape[2] * shape[3] == features:
            return Rows(batch, tokens, shape[2], shape[3])
    return Rows(batch, tokens, 1, features)


def _dense(
    kind: Kind, tensors: list[Expr], weight: Expr, scale: Any, rows: Rows, tile: int
) -> Expr:
    signs = payload(weight)
    has_zeros = bool((signs == 0).any())
    weight_kind = Kind.MASKED if has_zeros else Kind.SIGN
    spec = Dense(rows, kind, weight_kind, signs.shape[1], tile)
    step = step_operand(scale, spec)
    assert step is not None
    spec = replace(spec, steps=(Step("mul", step[0]),))
    packed = [literal(pack_weight(signs.T > 0, groups=rows.groups, column_tile=tile))]
    if has_zeros:
        packed.append(literal(pack_weight(signs.T != 0, groups=rows.groups, column_tile=tile)))
    return ops.packed(spec, [*tensors, *packed, literal(step[1])])
