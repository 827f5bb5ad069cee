"""General product of two live superposed tensors."""

from gsb_tvm.schedules.batch_matmul.product import kernel

__all__ = ["kernel"]
