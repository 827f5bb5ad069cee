"""Neighbouring axes that can be walked as one: vectors fill up where the last axis is short."""

from collections.abc import Sequence

from tvm.ir import TensorLoad

from gsb_tvm.schedules.float.expressions import index
from gsb_tvm.schedules.float.stages import Axis, children, loads, stride, uses
from gsb_tvm.schedules.vector import Expr


def merged(expr: Expr, axes: Sequence[Axis]) -> list[list[Axis]]:
    """``axes`` in groups, each of which ``expr`` reads as if it were one axis.

    Axes of extent 1 join any group, and trailing ones the last.
    """
    groups: list[list[Axis]] = []
    for axis in axes:
        if groups and _joins(expr, groups[-1], axis):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups


def one_axis(group: Sequence[Axis], position: Expr) -> list[Expr]:
    """Coordinates of a position along a merged group: all of it along the last long axis.

    They name the element, though not by its own coordinates: every tensor that is read or written
    is contiguous along the group. Nothing is divided, so that vectors stay vectors.
    """
    last = max((at for at, axis in enumerate(group) if axis.extent > 1), default=0)
    return [position if at == last else index(0) for at in range(len(group))]


def _joins(expr: Expr, group: Sequence[Axis], inner: Axis) -> bool:
    outer = [axis for axis in group if axis.extent > 1][-1:]
    if inner.extent == 1 or not outer:
        return True
    if any(_used_outside_of_loads(expr, axis.var) for axis in (*outer, inner)):
        return False
    for load in loads(expr):
        far, near = stride(load, outer[0].var), stride(load, inner.var)
        if far is None or near is None or far != near * inner.extent:
            return False
    return True


def _used_outside_of_loads(expr: Expr, var: Expr) -> bool:
    if isinstance(expr, TensorLoad):
        return any(uses(load, var) for index in expr.indices for load in loads(index))
    return expr.same_as(var) or any(_used_outside_of_loads(child, var) for child in children(expr))
