"""Drop zero planes where the compiler has proved that no value can be zero."""

from dataclasses import replace
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.ops import is_call, is_packed, spec_of
from gsb_tvm.dialect.specs import BatchMatmul, Dense, Kind
from gsb_tvm.passes.rewriting import Expr, Graph, payload, rewrite_pass


def DropZeroPlanes() -> Pass:
    """Turn a masked sign whose set of zeros is empty into a sign, and tell its readers.

    Before  q = gsb.dense(...; thresholds masked, every zero set empty);  gsb.attention_planes(q...)
    After   q = gsb.dense(...; thresholds sign);                          same, query kind sign
    Requires   every column's zero interval is empty, or holds only integers that a dot product of
               these planes cannot reach (signs times signs have the parity of K)
    Leaves alone   layers with a reachable zero
    Exact   yes
    Source   docs/architecture.md, Exactness, 4: sign(0) = 0
    """
    return rewrite_pass("DropZeroPlanes", lambda: _Dropper().visit)


class _Dropper:
    def __init__(self) -> None:
        self._signs: dict[Any, Expr] = {}  # old tuple -> its one remaining tensor
        self._gone: set[Any] = set()  # bits whose nonzero plane and flag are gone

    def visit(self, var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
        """Rewrite producers first met, then items, then readers."""
        if isinstance(value, relax.TupleGetItem) and value.tuple_value in self._signs:
            return self._signs[value.tuple_value]
        if is_call(value, "gsb.dense"):
            reader = self._reader(value)
            value = value if reader is None else reader
            dropped = _without_zeros(value)
            if dropped is None:
                return reader
            tensor = graph.emit(dropped, var.name)
            self._signs[tensor] = tensor
            self._gone.add(tensor)
            return tensor
        return self._reader(value) if is_packed(value) else None

    def _reader(self, value: Expr) -> Expr | None:
        spec = spec_of(value)
        names = [name for name, _, _ in spec.inputs()]

        def kind(plane: str, old: Kind) -> Kind:
            return Kind.SIGN if value.args[names.index(f"{plane}_bits")] in self._gone else old

        changes: dict[str, Any] = {
            field: kind(plane, getattr(spec, field))
            for plane, field in _FIELDS.get(type(spec).__name__, ())
        }
        if isinstance(spec, BatchMatmul):
            changes["a_kinds"] = tuple(kind(f"a{i}", old) for i, old in enumerate(spec.a_kinds))
            changes["b_kinds"] = tuple(kind(f"b{i}", old) for i, old in enumerate(spec.b_kinds))
        new = replace(spec, **changes)
        if new == spec:
            return None
        return ops.packed(new, [value.args[names.index(name)] for name, _, _ in new.inputs()])


_FIELDS = {
    "Dense": (("a", "activation"),),
    "AttentionPlanes": (("q", "query_kind"), ("k", "key_kind")),
    "AttentionValue": (("v", "value_kind"),),
}


def _without_zeros(value: Expr) -> Expr | None:
    spec: Dense = spec_of(value)
    if spec.thresholds is None or spec.thresholds.kind is not Kind.MASKED:
        return None
    low, width = (payload(arg) for arg in value.args[-2:])
    reachable = low != np.iinfo(low.dtype).max
    if spec.activation is Kind.SIGN and spec.weight is Kind.SIGN:
        wrong_parity = (low.astype(np.int64) - spec.rows.features) % 2 == 1
        reachable &= ~(wrong_parity & (width == 0))
    if reachable.any():
        return None
    thresholds = replace(spec.thresholds, kind=Kind.SIGN)
    return ops.packed(replace(spec, thresholds=thresholds), list(value.args[:-2]))
