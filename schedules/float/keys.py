"""What a float kernel computes, as text: the name under which records of tuning know it."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from tvm import tirx
from tvm.ir import Call, TensorLoad
from tvm_ffi import structural_walk

from gsb_tvm.dialect.planes import Tensor
from gsb_tvm.schedules.float.stages import Stage, children, read
from gsb_tvm.schedules.vector import Expr

_FAMILY = "Float"


def signature(func: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a PrimFunc as it is called: all inputs in order, then all outputs.

    An output is a parameter that the body writes.
    """
    written: list[Any] = []
    structural_walk(func.body, (tirx.BufferStore, lambda store: written.append(store.buffer)))
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    for param in func.params:
        tensor = (param.name, tuple(int(n) for n in param.shape), param.dtype)
        is_output = any(param.same_as(buffer) for buffer in written)
        (outputs if is_output else inputs).append(tensor)
    return inputs, outputs


def key(func: Any) -> str:
    """Text of an unscheduled PrimFunc, equal where the same is computed, in every process.

    It names the shapes and dtypes, and holds a digest of the stages' expressions. Names of
    variables, of tensors and of the function do not count, nor do its attributes::

        Float {"hash":"0f3a...","inputs":["float32 7x96","float32 96x10"],"outputs":[...]}

    Requires that a rule knows ``func``.
    """
    stages = read(func)
    assert stages is not None
    inputs, outputs = signature(func)
    fields = {
        "hash": hashlib.sha256(_text(func, stages).encode()).hexdigest()[:16],
        "inputs": [_tensor(each) for each in inputs],
        "outputs": [_tensor(each) for each in outputs],
    }
    return f"{_FAMILY} {msgspec.json.encode(fields).decode()}"


def _tensor(tensor: Tensor) -> str:
    _, shape, dtype = tensor
    return f"{dtype} {'x'.join(map(str, shape))}".rstrip()


def _text(func: Any, stages: Sequence[Stage]) -> str:
    """Parameters and stages, a line each; tensors and axes have numbers in place of names."""
    names: dict[Any, str] = {}
    lines = []
    for tensor in (*func.params, *[stage.buffer for stage in stages]):
        if tensor not in names:
            names[tensor] = f"t{len(names)}"
            lines.append(f"{names[tensor]} {tensor.dtype} {[int(n) for n in tensor.shape]}")
    for stage in stages:
        axes = [axis.var for axis in (*stage.axes, *stage.reduce)]
        local = names | {var: f"v{number}" for number, var in enumerate(axes)}
        extents = [axis.extent for axis in stage.axes], [axis.extent for axis in stage.reduce]
        start = f"{stage.combine} {stage.identity.hex()}" if stage.reduce else ""
        lines.append(f"{names[stage.buffer]} {extents} {start} {_expression(stage.value, local)}")
    return "\n".join(lines)


def _expression(expr: Expr, names: Mapping[Any, str]) -> str:
    """An expression with every operand's dtype, and ``names`` for its variables and tensors."""
    if isinstance(expr, tirx.Var):
        return names[expr]
    if isinstance(expr, tirx.IntImm):
        return f"{expr.ty.dtype} {int(expr)}"
    if isinstance(expr, tirx.FloatImm):
        return f"{expr.ty.dtype} {float(expr.value).hex()}"
    if isinstance(expr, tirx.Let):
        inner = {**names, expr.var: f"let{len(names)}"}
        return f"let({_expression(expr.value, names)}, {_expression(expr.body, inner)})"
    word = type(expr).__name__
    if isinstance(expr, TensorLoad):
        word = names[expr.source]
    elif isinstance(expr, Call):
        word = expr.op.name
    operands = [_expression(each, names) for each in children(expr)]
    return f"{word}({', '.join(operands)}) {expr.ty.dtype}"
