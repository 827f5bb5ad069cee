"""Attention times values: superposed masks times superposed signs, head by head."""

from gsb_tvm.schedules.attention_value.heads import kernel

__all__ = ["kernel"]
