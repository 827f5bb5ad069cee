"""Shapes of kernels for people."""

from typing import Any

from gsb_tvm.dialect.specs import AttentionPlanes, Dense, Operand
from gsb_tvm.dialect.work import extents


def shape_of(spec: Any) -> str:
    """Extents, batch left out where it is 1, and what else tells specs apart."""
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
