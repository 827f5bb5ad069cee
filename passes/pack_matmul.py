"""Pack any remaining product of two live superposed tensors, operator by operator."""

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats, Rows
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.packing import binarize, own_source, plane_source, product_scale
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, payload, rewrite_pass


def PackMatmul() -> Pass:
    """Replace a ``gsb.matmul`` of live planes by binarize and ``gsb.batch_matmul``.

    Before  y = gsb.matmul((p...), (s...), (q...), (t...))
    After   y = gsb.batch_matmul(bits of p..., bits of q..., s, t)
    and     scales a s, a of each head or row and s one number a plane:
            y = multiply(gsb.batch_matmul(..., s, t), a)
    Requires   equal leading axes; the scales of an operand's planes differ by the same numbers in
               every head and row
    Leaves alone   products with constant weights
    Exact   integers are; the sum over pairs is rounded to float32, and exact before ``a`` where
            these numbers are small integers
    Source   docs/architecture.md, the algebra
    """
    return rewrite_pass("PackMatmul", lambda: lambda _var, value, g: _pack(value, g))


def _pack(value: Expr, graph: Graph) -> Expr | None:
    if not is_call(value, "gsb.matmul"):
        return None
    left, left_scales, right, right_scales = (list(part.fields) for part in value.args)
    if any(constant(plane) is not None for plane in (*left, *right)):
        return None
    a_factors, b_factors = _factors(left_scales), _factors(right_scales)
    if a_factors is None or b_factors is None:
        return None
    shape_a, shape_b = shape_of(left[0]), shape_of(right[0])
    if shape_a[:-2] != shape_b[:-2]:
        return None
    batch, k = int(np.prod(shape_a[:-2])), shape_a[-1]
    a, b = Rows(batch, shape_a[-2], 1, k), Rows(batch, shape_b[-1], 1, k)
    a_tensors, a_kinds = _planes(left, a, graph, transposed=False)
    b_tensors, b_kinds = _planes(right, b, graph, transposed=True)
    spec = BatchMatmul(a, b, a_kinds, b_kinds)
    (a_common, a_scales), (b_common, b_scales) = a_factors, b_factors
    common = product_scale(literal(a_common), literal(b_common))
    if common.size == 1 and len(left) == len(right) == 1:  # the kernel's one scale will do
        a_scales, common = common.reshape(1), sp.ONE
    y = graph.emit(ops.packed(spec, [*a_tensors, *b_tensors, literal(a_scales), literal(b_scales)]))
    y = relax.op.reshape(y, shape_of(value))
    return y if (common == 1).all() else relax.op.multiply(graph.emit(y), literal(common))


def _factors(constants: list[Expr]) -> tuple[Floats, Floats] | None:
    """What all scales have in common, and one number a plane: their product is the scale.

    Where the numbers are integers, as in nested masks, sums of products that cancel are exactly 0,
    which a sign that follows tells apart.
    """
    scales = [payload(scale) for scale in constants]
    numbers = [_number(scale, scales[0]) for scale in scales]
    if all(number is not None for number in numbers):
        exact = np.array(numbers, np.float32)
        if scales[0].size > 1 or (exact == np.rint(exact)).all():
            return scales[0], exact
    if any(scale.size > 1 for scale in scales):
        return None
    return sp.ONE, np.array([scale.reshape(()) for scale in scales], np.float32)


def _number(scale: Floats, common: Floats) -> np.float32 | None:
    """The number by which ``common`` has to be multiplied to give ``scale`` exactly, or None."""
    index = np.unravel_index(np.abs(common).argmax(), common.shape)
    full = np.broadcast_to(scale, np.broadcast_shapes(scale.shape, common.shape))
    if full.shape != common.shape or common[index] == 0:
        return None
    number = np.float32(full[index] / common[index])
    return number if (common * number == full).all() else None


def _planes(
    planes: list[Expr], rows: Rows, graph: Graph, *, transposed: bool
) -> tuple[list[Expr], tuple[Kind, ...]]:
    tensors: list[Expr] = []
    kinds: list[Kind] = []
    for plane in planes:
        turned = _last_axes_turned(plane, graph) if transposed else None
        plane = plane if turned is None else turned
        source = plane_source(plane, graph) or own_source(plane, graph)
        x = source.x
        if transposed and turned is None:
            rank = len(shape_of(x))
            x = graph.emit(relax.op.permute_dims(x, [*range(rank - 2), rank - 1, rank - 2]))
        x = graph.emit(relax.op.reshape(x, (rows.batch, rows.tokens, rows.features)))
        tensors += binarize(source, x, rows, graph)
        kinds.append(source.compare.kind)
    return tensors, tuple(kinds)


def _last_axes_turned(plane: Expr, graph: Graph) -> Expr | None:
    """The plane whose last two axes a permute swapped to give ``plane``."""
    call = graph.call(plane, "relax.permute_dims")
    if call is None:
        return None
    rank = len(shape_of(plane))
    axes = [*range(rank - 2), rank - 1, rank - 2]
    found = [*reversed(range(rank))] if call.attrs.axes is None else map(int, call.attrs.axes)
    return call.args[0] if list(found) == axes else None
