"""Limits: kernels that do one kind of work and nothing else, for others to be held against.

Not called by any model. ``counting`` is for products of bits, ``multiply_adds`` for products of
floats, ``reading`` for what only looks at numbers.
"""

from gsb_tvm.schedules.limits.loops import Loop, counting, multiply_adds, reading

__all__ = ["Loop", "counting", "multiply_adds", "reading"]
