"""Dense layers: an activation plane times packed constant weights, with a fused epilogue."""

from gsb_tvm.schedules.dense.kernel import kernel
from gsb_tvm.schedules.dense.parameters import Parameters, arranged, rule
from gsb_tvm.schedules.dense.space import space
from gsb_tvm.schedules.dense.tiles import Method, column_tile, method

__all__ = [
    "Method",
    "Parameters",
    "arranged",
    "column_tile",
    "kernel",
    "method",
    "rule",
    "space",
]
