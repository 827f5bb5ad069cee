"""Attention times values: superposed masks times superposed signs, head by head."""

from gsb_tvm.schedules.attention_value.heads import kernel
from gsb_tvm.schedules.attention_value.space import Parameters, rule, space

__all__ = ["Parameters", "kernel", "rule", "space"]
