"""Dense layers: an activation plane times packed constant weights, with a fused epilogue."""

from gsb_tvm.schedules.dense.kernel import kernel
from gsb_tvm.schedules.dense.tiles import column_tile

__all__ = ["column_tile", "kernel"]
