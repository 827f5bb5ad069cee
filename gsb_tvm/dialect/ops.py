"""The house operators of Relax, each with its type, its plain meaning and a constructor.

Recognised, still on floats (tensors hold -1, 0, +1 or 0, 1):

- ``gsb.sign(x)``        attribute ``at_zero``: what 0 becomes, -1, 0 or +1
- ``gsb.mask(x, bound)`` attribute ``compare``: "gt", "ge", "lt" or "le"; 1 where it holds
- ``gsb.matmul((planes_a, scales_a, planes_b, scales_b))``: product of two superposed tensors,
  ``sum_g s_g P_g`` times ``sum_r t_r Q_r``; scales broadcast against their planes

Packed, on words: ``gsb.binarize, gsb.dense, gsb.value_planes, gsb.attention_planes,
gsb.attention_value, gsb.batch_matmul``; attribute ``spec``, see :mod:`gsb_tvm.dialect.specs`.
Of the same form, on floats: ``gsb.patches``.

The first three legalise to Relax operators, those with a spec to a call of the NumPy oracle, so a
module can be run after any pass. Kernels replace the packed operators before that happens.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import Op
from tvm.ir.op import register_op_attr

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Dense,
    Patches,
    Tensor,
    ValuePlanes,
    decode,
    encode,
)

Expr = Any
Attrs = dict[str, Any]

ORACLE = "gsb.oracle"
PACKED = {
    Binarize: "gsb.binarize",
    Dense: "gsb.dense",
    ValuePlanes: "gsb.value_planes",
    AttentionPlanes: "gsb.attention_planes",
    AttentionValue: "gsb.attention_value",
    BatchMatmul: "gsb.batch_matmul",
    Patches: "gsb.patches",
}
_PACKED_NAMES = frozenset(PACKED.values())
_COMPARISONS = {
    "gt": relax.op.greater,
    "ge": relax.op.greater_equal,
    "lt": relax.op.less,
    "le": relax.op.less_equal,
}


def shape_of(expr: Expr) -> tuple[int, ...]:
    """Static shape of a Relax expression."""
    return tuple(int(extent) for extent in expr.ty.shape)


def dtype_of(expr: Expr) -> str:
    """Element type of a Relax expression."""
    return str(expr.ty.dtype)


def is_call(expr: Expr, name: str) -> bool:
    """Whether ``expr`` is a call of the operator ``name``."""
    return isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name == name


def is_packed(expr: Expr) -> bool:
    """Whether ``expr`` is a call of a packed operator."""
    return (
        isinstance(expr, relax.Call) and isinstance(expr.op, Op) and expr.op.name in _PACKED_NAMES
    )


def spec_of(call: Expr) -> Any:
    """Spec of a packed operator."""
    return decode(str(call.attrs["spec"]))


def _call(name: str, args: Sequence[Expr], attrs: Attrs) -> relax.Call:
    return relax.Call(Op.get(name), list(args), tvm.ir.make_node("ir.DictAttrs", **attrs))


def sign(x: Expr, at_zero: int) -> relax.Call:
    """Sign plane of ``x``."""
    return _call("gsb.sign", [x], {"at_zero": at_zero})


def mask(x: Expr, bound: Expr, compare: str) -> relax.Call:
    """Mask plane: 1 where ``x compare bound``; bound broadcasts."""
    return _call("gsb.mask", [x, bound], {"compare": compare})


def matmul(
    a: Sequence[Expr], a_scales: Sequence[Expr], b: Sequence[Expr], b_scales: Sequence[Expr]
) -> relax.Call:
    """Product of two superposed tensors; every list has one entry per plane."""
    lists = [relax.Tuple(list(part)) for part in (a, a_scales, b, b_scales)]
    return _call("gsb.matmul", lists, {})


def packed(spec: Any, args: Sequence[Expr]) -> relax.Call:
    """Packed operator of ``spec``; one output is a tensor, several are a tuple."""
    return _call(PACKED[type(spec)], args, {"spec": encode(spec)})


def tensor_type(tensor: Tensor) -> relax.TensorType:
    """Relax type of a spec's tensor."""
    _, shape, dtype = tensor
    return relax.TensorType(shape, dtype)


def _infer_first(call: relax.Call, _ctx: Any) -> Any:
    return call.args[0].ty


def _infer_matmul(call: relax.Call, _ctx: Any) -> Any:
    a, b = shape_of(call.args[0].fields[0]), shape_of(call.args[2].fields[0])
    batch = np.broadcast_shapes(a[:-2], b[:-2])
    return relax.TensorType((*batch, a[-2], b[-1]), "float32")


def _infer_packed(call: relax.Call, _ctx: Any) -> Any:
    types = [tensor_type(tensor) for tensor in spec_of(call).outputs()]
    return types[0] if len(types) == 1 else relax.TupleType(types)


def _legalize_sign(builder: relax.BlockBuilder, call: relax.Call) -> Expr:
    x, at_zero = call.args[0], int(call.attrs["at_zero"])
    if at_zero == 0:
        return builder.normalize(relax.op.sign(x))
    above = relax.op.greater_equal if at_zero > 0 else relax.op.greater
    one, minus_one, zero = (relax.const(value, "float32") for value in (1.0, -1.0, 0.0))
    return builder.normalize(relax.op.where(above(x, zero), one, minus_one))


def _legalize_mask(builder: relax.BlockBuilder, call: relax.Call) -> Expr:
    holds = _COMPARISONS[str(call.attrs["compare"])](*call.args)
    return builder.normalize(relax.op.astype(builder.emit(holds), "float32"))


def _superposed(builder: relax.BlockBuilder, planes: Any, scales: Any) -> Expr:
    total: Expr = None
    for plane, scale in zip(planes.fields, scales.fields, strict=True):
        term = builder.emit(relax.op.multiply(plane, scale))
        total = term if total is None else builder.emit(relax.op.add(total, term))
    return total


def _legalize_matmul(builder: relax.BlockBuilder, call: relax.Call) -> Expr:
    a, a_scales, b, b_scales = call.args
    left, right = _superposed(builder, a, a_scales), _superposed(builder, b, b_scales)
    return builder.normalize(relax.op.matmul(left, right))


def _legalize_packed(builder: relax.BlockBuilder, call: relax.Call) -> Expr:
    spec = spec_of(call)
    args = relax.Tuple([tvm.ir.StringImm(encode(spec)), *call.args])
    types = [tensor_type(tensor) for tensor in spec.outputs()]
    return builder.normalize(relax.op.call_dps_packed(ORACLE, args, out_ty=types))


def _run_oracle(text: str, *tensors: Any) -> None:
    spec = decode(text)
    count = len(spec.inputs())
    inputs = [tensor.numpy() for tensor in tensors[:count]]
    for target, value in zip(tensors[count:], oracle.compute(spec, inputs), strict=True):
        target.copyfrom(value)


def _register() -> None:
    rules = {
        "gsb.sign": (_infer_first, _legalize_sign),
        "gsb.mask": (_infer_first, _legalize_mask),
        "gsb.matmul": (_infer_matmul, _legalize_matmul),
        **{name: (_infer_packed, _legalize_packed) for name in _PACKED_NAMES},
    }
    for name, (infer, legalize) in rules.items():
        register_op_attr(name, "FInferType", infer)
        register_op_attr(name, "FLegalize", legalize)
        register_op_attr(name, "FPurity", True)
    tvm.register_global_func(ORACLE, _run_oracle)


_register()
