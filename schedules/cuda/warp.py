"""What the lanes of a warp do together; all 32 must come."""

from collections.abc import Callable
from operator import or_

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.cuda.grid import call
from gsb_tvm.schedules.vector import Expr, bind


def ballot(mine: Expr) -> Expr:
    """A word whose bit l says what lane l says."""
    return bind(call("gsb_ballot", mine, dtype="uint32"))


def combined(
    value: Expr,
    dtype: str,
    combine: Callable[[Expr, Expr], Expr],
    lanes: int = 32,
    distance: int = 1,
) -> Expr:
    """All values of neighbouring lanes combined, the same in each of them.

    Of ``lanes`` lanes those that are ``distance`` apart. Pairs at growing distances: the order is
    the same in every lane, but for which of two comes first.
    """
    while distance < lanes:
        other = call("gsb_exchange", value, T.int32(distance), dtype=dtype)
        value = bind(combine(value, other))
        distance *= 2
    return value


def word_of_quad(own: Expr, member: Expr) -> Expr:
    """The word of four neighbouring lanes that have two of every eight bits.

    ``member`` is the lane's place among them, ``own`` its bits as they stand for the first: where
    ``mma`` leaves products of neighbouring columns (``device.cuh``).
    """
    return combined(bind(own << T.cast(member * 2, "uint32")), "uint32", or_, lanes=4)
