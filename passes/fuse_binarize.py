"""Fuse what stands before a binarize: the shift, the layer norm, attention's product."""

from dataclasses import replace

import numpy as np
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.ops import is_call, shape_of, spec_of
from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.passes.packing import column_vector
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, operand_pair, rewrite_pass


def FuseBinarize() -> Pass:
    """Let one pass over the row normalise, shift, compare and pack.

    Before  b = gsb.binarize(add(layer_norm(x, gamma, beta), move))
    After   b = gsb.binarize(x, gamma, beta, move; norm, shift)
    and     b = gsb.binarize(add(gsb.attention_value(...), move))
    after   b = gsb.attention_value(..., move; compare)
    and     gsb.value_planes(add(x, move)) likewise
    Requires   constants per feature; norm over the last axis; one shift
    Leaves alone   live shifts, a second shift, a shift before a norm, norms over other axes,
                   products of attention that others read too
    Exact   integers yes; the norm's sums may be taken in another order
    Source   docs/architecture.md, Packed operators and kernels
    """
    return rewrite_pass("FuseBinarize", lambda: lambda _var, value, g: _fuse(value, g))


def _fuse(value: Expr, graph: Graph) -> Expr | None:
    if not (is_call(value, "gsb.binarize") or is_call(value, "gsb.value_planes")):
        return None
    shifted = _shift(value, graph)
    if is_call(value, "gsb.value_planes"):
        return shifted
    start = value if shifted is None else shifted
    for fuse in (_norm, _attention):
        fused = fuse(start, graph)
        if fused is not None:
            return fused
    return shifted


def _shift(value: Expr, graph: Graph) -> Expr | None:
    spec = spec_of(value)
    call = graph.call(value.args[0], "relax.add")
    pair = operand_pair(call) if call is not None else None
    if spec.shift or pair is None or shape_of(pair[0]) != shape_of(value.args[0]):
        return None
    if is_call(value, "gsb.binarize") and spec.norm:
        return None  # a shift before the norm is none after it
    vector = column_vector(pair[1], spec.rows.features)
    if vector is None:
        return None
    return ops.packed(replace(spec, shift=True), [pair[0], literal(vector)])


def _norm(value: Expr, graph: Graph) -> Expr | None:
    spec: Binarize = spec_of(value)
    call = graph.call(value.args[0], "relax.nn.layer_norm")
    if spec.norm or call is None:
        return None
    x, gamma, beta = call.args
    rank = len(shape_of(x))
    axes = [int(axis) % rank for axis in call.attrs.axes]
    vectors = [constant(gamma), constant(beta)]
    if axes != [rank - 1] or any(v is None or v.size != spec.rows.features for v in vectors):
        return None
    fused = replace(spec, norm=True, eps=float(np.float32(call.attrs.epsilon)))
    return ops.packed(fused, [x, gamma, beta, *value.args[1:]])


def _attention(value: Expr, graph: Graph) -> Expr | None:
    spec: Binarize = spec_of(value)
    call = graph.call(value.args[0], "gsb.attention_value")
    if spec.norm or call is None or not graph.is_single_use(value.args[0]):
        return None
    attention = spec_of(call)
    if attention.compare is not None or attention.v != spec.rows:
        return None
    fused = replace(attention, compare=spec.compare, shift=spec.shift)
    args = [*call.args, *value.args[1:]]
    return graph.emit(ops.packed(fused, args), value.args[0].name)
