"""Store constants that repeat along an axis once."""

import numpy as np
from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect.ops import is_call
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, rewrite_pass
from gsb_tvm.passes.superposition import compact

SMALLEST = 1 << 10  # elements; below, the bytes saved are not worth an index map


def StoreRepeats() -> Pass:
    """Broadcast a repeated constant where it is concatenated instead of storing every copy.

    Before  y = concat((t, x), axis)     t constant (batch, 1, width), equal for every image
    After   y = concat((broadcast_to(t[:1], shape of t), x), axis)
    Requires   the constant repeats along an axis
    Leaves alone   constants of other operators, which broadcast by themselves; small constants
    Exact   yes
    Source   exporters expand class tokens to the batch; docs/performance.md, size
    """
    return rewrite_pass("StoreRepeats", lambda: lambda _var, value, g: _store(value, g))


def _store(value: Expr, graph: Graph) -> Expr | None:
    if not is_call(value, "relax.concat"):
        return None
    fields = [_once(field, graph) for field in value.args[0].fields]
    if all(new is old for new, old in zip(fields, value.args[0].fields, strict=True)):
        return None
    return relax.Call(value.op, [relax.Tuple(fields)], value.attrs)


def _once(field: Expr, graph: Graph) -> Expr:
    array = constant(field)
    if array is None or array.size < SMALLEST:
        return field
    small = np.atleast_1d(compact(array))
    if small.size == array.size:
        return field
    return graph.emit(relax.op.broadcast_to(literal(small), array.shape))
