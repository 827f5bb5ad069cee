"""Pack any remaining product of two live superposed tensors, operator by operator."""

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.passes.packing import binarize, own_source, plane_source
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, payload, rewrite_pass


def PackMatmul() -> Pass:
    """Replace a ``gsb.matmul`` of live planes by binarize and ``gsb.batch_matmul``.

    Before  y = gsb.matmul((p...), (s...), (q...), (t...))
    After   y = gsb.batch_matmul(bits of p..., bits of q..., s, t)
    Requires   equal leading axes and one scalar scale per plane
    Leaves alone   products with constant weights, scales per row or head
    Exact   integers are; the sum over pairs is rounded to float32
    Source   docs/architecture.md, the algebra
    """
    return rewrite_pass("PackMatmul", lambda: lambda _var, value, g: _pack(value, g))


def _pack(value: Expr, graph: Graph) -> Expr | None:
    if not is_call(value, "gsb.matmul"):
        return None
    left, left_scales, right, right_scales = (list(part.fields) for part in value.args)
    if any(constant(plane) is not None for plane in (*left, *right)):
        return None
    scales = [[payload(s) for s in part] for part in (left_scales, right_scales)]
    if any(s.size != 1 for part in scales for s in part):
        return None
    shape_a, shape_b = shape_of(left[0]), shape_of(right[0])
    if shape_a[:-2] != shape_b[:-2]:
        return None
    batch, k = int(np.prod(shape_a[:-2])), shape_a[-1]
    a, b = Rows(batch, shape_a[-2], 1, k), Rows(batch, shape_b[-1], 1, k)
    a_tensors, a_kinds = _planes(left, a, graph, transposed=False)
    b_tensors, b_kinds = _planes(right, b, graph, transposed=True)
    spec = BatchMatmul(a, b, a_kinds, b_kinds)
    vectors = [literal(np.array([s.reshape(()) for s in part], "float32")) for part in scales]
    y = graph.emit(ops.packed(spec, [*a_tensors, *b_tensors, *vectors]))
    return relax.op.reshape(y, shape_of(value))


def _planes(
    planes: list[Expr], rows: Rows, graph: Graph, *, transposed: bool
) -> tuple[list[Expr], tuple[Kind, ...]]:
    tensors: list[Expr] = []
    kinds: list[Kind] = []
    for plane in planes:
        source = plane_source(plane, graph) or own_source(plane)
        x = source.x
        if transposed:
            rank = len(shape_of(x))
            x = graph.emit(relax.op.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2]))
        x = graph.emit(relax.op.reshape(x, (rows.batch, rows.tokens, rows.features)))
        tensors += binarize(source, x, rows, graph)
        kinds.append(source.compare.kind)
    return tensors, tuple(kinds)
