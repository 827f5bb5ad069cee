"""What the lanes of a warp do together; all 32 must come."""

from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.cuda.grid import call
from gsb_tvm.schedules.vector import Expr, bind


def ballot(mine: Expr) -> Expr:
    """A word whose bit l says what lane l says."""
    return bind(call("gsb_ballot", mine, dtype="uint32"))


def combined(
    value: Expr, dtype: str, combine: Callable[[Expr, Expr], Expr], lanes: int = 32
) -> Expr:
    """All values of ``lanes`` neighbouring lanes combined, the same in each of them.

    Pairs at growing distances: the order is the same in every lane, but for which of two comes
    first.
    """
    distance = 1
    while distance < lanes:
        other = call("gsb_exchange", value, T.int32(distance), dtype=dtype)
        value = bind(combine(value, other))
        distance *= 2
    return value
