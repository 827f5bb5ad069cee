"""Let a packed dense layer do the float steps that follow it."""

from dataclasses import replace

from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.ops import is_call, shape_of, spec_of
from gsb_tvm.dialect.specs import Operand, Step
from gsb_tvm.passes.packing import step_operand
from gsb_tvm.passes.rewriting import Expr, Graph, constant, literal, rewrite_pass

_OPS = {"relax.add": "add", "relax.multiply": "mul"}


def FuseDenseSteps() -> Pass:
    """Move an add or multiply by a column vector or a whole tensor into ``gsb.dense``.

    Before  y = gsb.dense(...);  z = add(x, y)      y read once, x (batch, tokens, columns)
    After   z = gsb.dense(..., x; steps + add tensor)
    Requires   the dense result is read once, both operands have the result's shape or one is a
               constant per column
    Leaves alone   results read twice, broadcasts of live tensors, dense layers that write bits
    Exact   yes: the same float32 steps in the same order
    Source   docs/architecture.md, Packed operators and kernels
    """
    return rewrite_pass("FuseDenseSteps", lambda: lambda _var, value, g: _fuse(value, g))


def _fuse(value: Expr, graph: Graph) -> Expr | None:
    if not any(is_call(value, name) for name in _OPS):
        return None
    step = _OPS[value.op.name]
    for y, other in (value.args, reversed(list(value.args))):
        call = graph.call(y, "gsb.dense")
        if call is None or not graph.is_single_use(y) or shape_of(y) != shape_of(value):
            continue
        spec = spec_of(call)
        if spec.thresholds is not None:
            continue
        array = constant(other)
        if array is None and shape_of(other) == shape_of(y):
            steps = (*spec.steps, Step(step, Operand.TENSOR))
            return graph.emit(ops.packed(replace(spec, steps=steps), [*call.args, other]), y.name)
        operand = None if array is None else step_operand(array, spec)
        if operand is None:
            continue
        steps = (*spec.steps, Step(step, operand[0]))
        args = [*call.args, literal(operand[1])]
        return graph.emit(ops.packed(replace(spec, steps=steps), args), y.name)
    return None
