"""Boolean vectors as packed words, on every machine."""

from typing import Any

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.vector import bits_of
from gsb_tvm.targets import Profile

Expr = Any


def word_of(mask: Expr, profile: Profile) -> Expr:
    """A boolean vector of 32 lanes as a uint32, lane 0 the lowest bit.

    ``mask`` is an expression that no name is bound to: TVM cannot bind boolean vectors.
    """
    return packed([mask]) if profile.has_neon else bits_of(mask, WORD_BITS)
