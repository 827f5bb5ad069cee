"""What the packing passes share: planes of the graph as packed tensors."""

from dataclasses import dataclass

import numpy as np
from tvm import relax

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Floats, Rows
from gsb_tvm.dialect.ops import shape_of
from gsb_tvm.dialect.specs import Binarize, Compare, Dense, Kind, Operand
from gsb_tvm.passes.rewriting import Expr, Graph, payload, scalar
from gsb_tvm.passes.thresholds import pull_back
from gsb_tvm.passes.views import view_index, view_source


@dataclass(frozen=True)
class PlaneSource:
    """A plane as a comparison of a float tensor: what gets binarised, and how."""

    x: Expr
    compare: Compare


def plane_source(plane: Expr, graph: Graph) -> PlaneSource | None:
    """The tensor and comparison behind ``gsb.sign`` or a ``gsb.mask`` with a constant bound.

    None for any other plane, see :func:`own_source`.
    """
    call = graph.call(plane, "gsb.sign")
    if call is not None:
        at_zero = int(call.attrs["at_zero"])
        kind = Kind.SIGN if at_zero else Kind.MASKED
        return PlaneSource(call.args[0], Compare(kind, 0.0, strict=at_zero <= 0))
    call = graph.call(plane, "gsb.mask")
    bound = scalar(call.args[1]) if call is not None else None
    if call is None or bound is None or str(call.attrs["compare"]) not in ("gt", "ge"):
        return None
    if not np.isfinite(bound):  # JSON, and so a spec, has no infinity
        return None
    return PlaneSource(call.args[0], Compare(Kind.MASK, bound, str(call.attrs["compare"]) == "gt"))


def own_source(plane: Expr, graph: Graph) -> PlaneSource:
    """Any plane as its own source: its values 0, 1 or -1, 0, 1 compared with 0."""
    behind, _ = view_source(plane, graph)
    is_mask = graph.call(behind, "gsb.mask") is not None
    return PlaneSource(plane, Compare(Kind.MASK if is_mask else Kind.MASKED))


def token_source(x: Expr, rows: Rows, graph: Graph) -> Expr | None:
    """Tensor (batch, tokens, features) that ``x`` (batch, heads, tokens, width) is a view of."""
    if shape_of(x) != (rows.batch, rows.groups, rows.tokens, rows.width):
        return None
    source, calls = view_source(x, graph)
    shape = (rows.batch, rows.tokens, rows.features)
    for start in range(len(calls) + 1):
        at = source if start == 0 else calls[start][0].args[0] if start < len(calls) else x
        if shape_of(at) != shape:
            continue
        index = view_index(at, calls[start:])
        if index.shape != shape_of(x):
            continue
        by_head = np.arange(index.size).reshape(rows.batch, rows.tokens, rows.groups, rows.width)
        if (index == by_head.transpose(0, 2, 1, 3)).all():
            return at
    return None


def sign_by_token(plane: Expr, rows: Rows, graph: Graph, *, transposed: bool) -> PlaneSource | None:
    """A sign plane's source as (batch, tokens, features), whatever views lie around the sign."""
    if transposed:
        call = graph.call(plane, "relax.permute_dims")
        if call is None or [int(a) for a in call.attrs.axes or ()] != [0, 1, 3, 2]:
            return None
        plane = call.args[0]
    source = plane_source(plane, graph)
    if source is not None:
        x = token_source(source.x, rows, graph)
    else:
        behind = token_source(plane, rows, graph)
        source = plane_source(behind, graph) if behind is not None else None
        x = source.x if source is not None else None
    if source is None or x is None or source.compare.kind is Kind.MASK:
        return None
    return PlaneSource(x, source.compare)


def binarize(source: PlaneSource, x: Expr, rows: Rows, graph: Graph) -> list[Expr]:
    """Emit ``gsb.binarize``; the tensors that carry the plane."""
    spec = Binarize(rows, source.compare, norm=False, shift=False)
    return plane_tensors(graph.emit(ops.packed(spec, [x])), source.compare.kind, graph)


def plane_tensors(out: Expr, kind: Kind, graph: Graph) -> list[Expr]:
    """The tensors of a plane that a packed operator returned first."""
    if kind is not Kind.MASKED:
        return [out]
    return [graph.emit(relax.TupleGetItem(out, i)) for i in range(3)]


def product_scale(a: Expr, b: Expr) -> Floats:
    """Product of two constant scales, rounded once."""
    left, right = payload(a), payload(b)
    return (left.astype(np.float64) * right.astype(np.float64)).astype(np.float32)


def step_operand(array: Floats, spec: Dense) -> tuple[Operand, Floats] | None:
    """How a constant joins a dense layer's float steps: one number, or padded columns."""
    if array.size == 1 or (array == array.reshape(-1)[0]).all():
        return Operand.SCALAR, array.reshape(-1)[:1].astype(np.float32)
    vector = column_vector(array, spec.columns)
    if vector is None:
        return None
    padded = np.zeros(spec.padded_columns, dtype=np.float32)
    padded[: spec.columns] = vector
    return Operand.COLUMN, padded


def column_vector(array: Floats, columns: int) -> Floats | None:
    """A constant as one value per column, or None where it is not."""
    if array.size == 1:
        return np.full(columns, array.reshape(()), dtype=np.float32)
    if array.size == columns and array.shape[-1] == columns:
        return array.reshape(columns)
    return None


def strict_bound(compare: Compare) -> Compare:
    """The same comparison written with ``>``: x >= b is x > the float before b."""
    if compare.strict:
        return compare
    before = pull_back([], compare.bound, strict=False)
    return Compare(compare.kind, float(before), strict=True)
