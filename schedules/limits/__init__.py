"""Limits: kernels that do one kind of work and nothing else, for others to be held against.

Not called by any model. ``counting`` is for products of bits, ``multiply_adds`` for products of
floats, ``reading`` for what only looks at numbers, ``tile_products`` for what goes by AMX.
"""

from gsb_tvm.dialect.work import Bound
from gsb_tvm.schedules.limits.loops import Loop, counting, multiply_adds, reading, tile_products
from gsb_tvm.targets import Profile

__all__ = ["Loop", "counting", "loop", "multiply_adds", "reading", "tile_products"]


def loop(bound: Bound, profile: Profile, floats: int = 0) -> Loop:
    """The loop that a kernel bound so is held against; ``floats`` for one that reads them."""
    if bound is Bound.READING:
        return reading(profile, floats)
    if bound is Bound.TILES:
        return tile_products()
    return counting(profile) if bound is Bound.COUNTING else multiply_adds(profile)
