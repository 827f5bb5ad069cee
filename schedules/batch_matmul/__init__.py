"""General product of two live superposed tensors."""

from gsb_tvm.schedules.batch_matmul.product import kernel
from gsb_tvm.schedules.batch_matmul.space import Parameters, rule, space

__all__ = ["Parameters", "kernel", "rule", "space"]
