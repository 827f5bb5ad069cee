"""Boolean vectors as packed words, on every machine."""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules import vector
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.vector import bits_of, splat
from gsb_tvm.targets import Profile

Expr = Any


def word_of(mask: Expr, profile: Profile) -> Expr:
    """A boolean vector of 32 lanes as a uint32, lane 0 the lowest bit.

    ``mask`` is an expression that no name is bound to: TVM cannot bind boolean vectors.
    """
    return packed([mask]) if profile.has_neon else bits_of(mask, WORD_BITS)


def lanes_of(word: Expr, profile: Profile) -> Expr:
    """A uint32 as a boolean vector of 32 lanes: the inverse of :func:`word_of`.

    On Neon every lane tests its bit: LLVM would move bits into a vector one by one.
    """
    if not profile.has_neon:
        return vector.lanes_of(word, WORD_BITS)
    ones = splat(1, WORD_BITS, "uint32")
    places = ones << T.cast(T.ramp(0, 1, WORD_BITS), f"uint32x{WORD_BITS}")
    return (splat(word, WORD_BITS) & places) != splat(0, WORD_BITS, "uint32")
