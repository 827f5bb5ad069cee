"""What a kernel has to do, told from its spec."""

from enum import StrEnum
from math import prod
from typing import Any

from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Dense,
    Operand,
    Patches,
)


class Bound(StrEnum):
    """What limits a kernel at best."""

    COUNTING = "counting"
    MULTIPLYING = "multiplying"
    READING = "reading"


def bound_of(spec: Any) -> Bound:
    """What limits the kernel of a spec."""
    if isinstance(spec, Patches):
        return Bound.MULTIPLYING
    is_product = isinstance(spec, Dense | AttentionPlanes | AttentionValue | BatchMatmul)
    return Bound.COUNTING if is_product else Bound.READING


def extents_of(spec: Any) -> tuple[int, ...]:
    """Batch first; of a product (batch, heads where it has them, rows, contracted, columns)."""
    match spec:
        case Dense(rows=rows):
            return rows.batch, rows.tokens, rows.features, spec.columns
        case AttentionPlanes(q=q):
            return q.batch, q.groups, q.tokens, q.width, q.tokens
        case AttentionValue(v=v):
            return v.batch, v.groups, v.tokens, v.tokens, v.width
        case Patches():
            return spec.batch, prod(spec.grid), spec.depth, spec.columns
        case BatchMatmul(a=a, b=b):
            return a.batch, a.tokens, a.features, b.tokens
        case _:
            return spec.rows.batch, spec.rows.tokens, spec.rows.features


def macs_of(spec: Any) -> int:
    """Multiply-accumulates of one plane on each side; 0 where the kernel is no product."""
    return 0 if bound_of(spec) is Bound.READING else prod(extents_of(spec))


def floats_of(spec: Any) -> int:
    """Elements of the largest float argument."""
    tensors = [*spec.inputs(), *spec.outputs()]
    return max((prod(shape) for _, shape, dtype in tensors if dtype == "float32"), default=0)


def shape_of(spec: Any) -> str:
    """Extents for people, batch left out where it is 1, and what else tells specs apart."""
    sizes = extents_of(spec)
    text = " x ".join(map(str, sizes[1:] if sizes[0] == 1 else sizes))
    if isinstance(spec, AttentionPlanes):
        return f"{text} spread {spec.spread}"
    if not isinstance(spec, Dense):
        return text
    if spec.thresholds is not None:
        return f"{text} to bits"
    has_residual = any(step.operand is Operand.TENSOR for step in spec.steps)
    return f"{text} + residual" if has_residual else f"{text} to floats"
