"""How much there is to do in one call of a packed operator, and of what kind: from its spec."""

from enum import StrEnum
from math import prod
from typing import Any

import numpy as np

from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Dense,
    Operand,
    Patches,
    Spec,
)


class Bound(StrEnum):
    """What limits a kernel at best."""

    COUNTING = "counting"  # products of bits
    MULTIPLYING = "multiplying"  # products of floats
    READING = "reading"  # looking at each number
    TILES = "tiles"  # products of bits by products of bytes, where a kernel goes that way


def bound(spec: Any) -> Bound:
    """What limits the kernel of a spec."""
    if isinstance(spec, Patches):
        return Bound.MULTIPLYING
    is_product = isinstance(spec, Dense | AttentionPlanes | AttentionValue | BatchMatmul)
    return Bound.COUNTING if is_product else Bound.READING


def extents(spec: Any) -> tuple[int, ...]:
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


def shape_text(spec: Any) -> str:
    """Extents for people, batch left out where it is 1, and what else tells specs apart."""
    sizes = extents(spec)
    text = " x ".join(map(str, sizes[1:] if sizes[0] == 1 else sizes))
    if isinstance(spec, AttentionPlanes):
        return f"{text} spread {spec.spread}"
    if not isinstance(spec, Dense):
        return text
    if spec.thresholds is not None:
        return f"{text} to bits"
    has_residual = any(step.operand is Operand.TENSOR for step in spec.steps)
    return f"{text} + residual" if has_residual else f"{text} to floats"


def macs(spec: Any) -> int:
    """Multiply-accumulates; 0 of an operator that only looks at each number.

    Of attention times values those of one plane on each side: the other planes are nearly empty
    and kept as lists. A general product multiplies every plane by every other.
    """
    if bound(spec) is Bound.READING:
        return 0
    pairs = len(spec.a_kinds) * len(spec.b_kinds) if isinstance(spec, BatchMatmul) else 1
    return pairs * prod(extents(spec))


def floats(spec: Spec) -> int:
    """Elements of the largest float32 tensor that is read or written."""
    return max((size for size, dtype in _sizes(spec) if dtype == "float32"), default=0)


def bytes_touched(spec: Spec) -> int:
    """Bytes of all tensors read and written, each counted once."""
    return sum(size * np.dtype(dtype).itemsize for size, dtype in _sizes(spec))


def _sizes(spec: Spec) -> list[tuple[int, str]]:
    """Elements and type of every tensor."""
    return [(prod(shape), dtype) for _, shape, dtype in (*spec.inputs(), *spec.outputs())]
