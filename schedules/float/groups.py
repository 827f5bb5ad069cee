"""The channels of a grouped convolution as two axes: groups, and the channels of one."""

from collections.abc import Iterator
from dataclasses import replace

from tvm import sym, tirx
from tvm.ir import Range

from gsb_tvm.schedules.float.expressions import Scope, index
from gsb_tvm.schedules.float.stages import Axis, Stage, children, loads
from gsb_tvm.schedules.vector import Expr

_FEWEST = 4  # channels of a group; fewer are no rows for a product


def split_groups(stage: Stage) -> tuple[Stage, list[Expr]]:
    """``stage`` over groups and members where it divides an axis by a constant.

    Returns it with the coordinates of its tensor as expressions of its axes, which are the axes
    themselves where nothing is divided.
    """
    for axis in stage.axes:
        for size in _divisors(stage.value, axis.var):
            if axis.extent % size == 0 and _FEWEST <= size < axis.extent:
                return _split(stage, axis, size)
    return stage, stage.vars


def _divisors(expr: Expr, var: Expr) -> Iterator[int]:
    """Constants that ``var`` is divided by in ``expr``."""
    is_division = isinstance(expr, tirx.FloorDiv) and expr.a.same_as(var)
    if is_division and isinstance(expr.b, tirx.IntImm):
        yield int(expr.b)
    for child in children(expr):
        yield from _divisors(child, var)


def _split(stage: Stage, axis: Axis, size: int) -> tuple[Stage, list[Expr]]:
    group = Axis(tirx.Var(f"{axis.var.name}_group", "int64"), axis.extent // size)
    member = Axis(tirx.Var(f"{axis.var.name}_member", "int64"), size)
    whole = group.var * index(size) + member.var
    plain = Scope()
    for load in loads(stage.value):
        plain.bind_buffer(load.source, load.source)
    analyzer = sym.Analyzer()
    analyzer.bind(member.var, Range(index(0), index(size)))
    value = analyzer.simplify(plain.evaluate(stage.value, {axis.var: whole}))
    at = stage.axes.index(axis)
    axes = (*stage.axes[:at], group, member, *stage.axes[at + 1 :])
    places = [whole if each is axis else each.var for each in stage.axes]
    return replace(stage, axes=axes, value=value), places
