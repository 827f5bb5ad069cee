"""Finding out whether the images of a batch influence each other."""

from typing import Any

from tvm.ir import IRModule
from tvm.relax import Call

_REDUCTIONS = frozenset(f"relax.{name}" for name in ("max", "min", "sum", "mean", "prod"))


def reduces_batch(module: IRModule) -> bool:
    """Whether ``main`` of an imported module reduces a live tensor over its first axis.

    That is the batch, but for tensors that were turned before. GSB does: its thresholds are shares
    of the largest value of all images.
    """
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, Call) and getattr(value.op, "name", "") in _REDUCTIONS:
                if _spans_first(value):
                    return True
    return False


def _spans_first(call: Any) -> bool:
    axes = call.attrs.axis
    return axes is None or 0 in [int(axis) for axis in axes]
