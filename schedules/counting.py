"""Counts of set bits, summed over words: the inner loop of every packed product.

Two strategies, one source. With VPOPCNTDQ each 32-bit lane is counted by one instruction and added
in 32 bits. Elsewhere bytes are counted (a table lookup or bit tricks on x86, ``cnt`` on Arm: LLVM's
own lowering) and added in bytes for up to 31 words, 31 * 8 = 248 <= 255, then folded to 32 bits.
"""

from collections.abc import Callable, Sequence

import tvm
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, local, popcount, splat, store
from gsb_tvm.targets.profile import Profile

BYTE_WORDS = 31  # a byte counter gains at most 8 per word: 31 * 8 <= 255


def reinterpret(value: Expr, dtype: str) -> Expr:
    """The bits of ``value`` as another type of the same size."""
    return tvm.tirx.call_intrin(dtype, "tirx.reinterpret", value)


def count_words(
    profile: Profile,
    words: int,
    lanes: int,
    count: int,
    terms: Callable[[Expr], Sequence[Expr]],
) -> Buffer:
    """Set bits of ``count`` vectors, each lane summed over ``words`` words.

    Parameters
    ----------
    terms
        Gives, for the word ``k`` (an expression), ``count`` vectors ``uint32x{lanes}``.

    Returns
    -------
    Buffer
        Local ``uint32[count, lanes]``; a dot product of up to 2**32 bits is exact.
    """
    total = local((count, lanes), "uint32")
    for i in range(count):
        store(total, splat(0, lanes, "uint32"), i, 0, lanes=lanes)
    if profile.has_vpopcntdq:
        with T.serial(words) as k:
            for i, term in enumerate(terms(k)):
                store(total, load(total, i, 0, lanes=lanes) + popcount(term), i, 0, lanes=lanes)
        return total
    rounds, rest = divmod(words, BYTE_WORDS)
    if rounds:
        with T.serial(rounds) as r:
            _count_bytes(total, BYTE_WORDS, lambda k: terms(bind(r * BYTE_WORDS + k)), lanes, count)
    if rest:
        _count_bytes(total, rest, lambda k: terms(bind(k + rounds * BYTE_WORDS)), lanes, count)
    return total


def _count_bytes(
    total: Buffer, words: int, terms: Callable[[Expr], Sequence[Expr]], lanes: int, count: int
) -> None:
    width = 4 * lanes
    partial = local((count, width), "uint8")
    for i in range(count):
        store(partial, splat(0, width, "uint8"), i, 0, lanes=width)
    with T.serial(words) as k:
        for i, term in enumerate(terms(k)):
            counted = popcount(reinterpret(term, f"uint8x{width}"))
            store(partial, load(partial, i, 0, lanes=width) + counted, i, 0, lanes=width)
    for i in range(count):
        folded = fold_bytes(load(partial, i, 0, lanes=width), lanes)
        store(total, load(total, i, 0, lanes=lanes) + folded, i, 0, lanes=lanes)


def fold_bytes(partial: Expr, lanes: int) -> Expr:
    """Sum of the four bytes of every 32-bit lane."""

    def const(value: int) -> Expr:
        return splat(value, lanes, "uint32")

    quads = bind(reinterpret(partial, f"uint32x{lanes}"))
    pairs = bind((quads & const(0x00FF00FF)) + ((quads >> const(8)) & const(0x00FF00FF)))
    return (pairs & const(0xFFFF)) + (pairs >> const(16))


def dot_of(counted: Expr, lanes: int) -> Expr:
    """A count as int32, where doubling and subtracting stay exact."""
    return reinterpret(counted, f"int32x{lanes}")
