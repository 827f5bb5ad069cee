"""The highest bits of floats as packed words, by insertion (Neon): four numbers an instruction.

``sri`` puts a vector behind the highest bits of another one, so four bits of each number stay: its
sign, and the highest three of its exponent. Of a scaled number they say whether it is at least 2
(the first, also where it is not finite) or else at least 2**-63 (the second).
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v

Expr = Any

QUAD = 4  # floats of a vector
QUADS = WORD_BITS // QUAD
KEPT = WORD_BITS // QUADS  # bits of each number
SIGNS, LARGE, NORMAL = 0x88888888, 0x44444444, 0x22222222  # of a gathered vector


def gathered(above: Expr | None, floats: Expr, quad: int) -> Expr:
    """Kept bits of 32 floats, collected from the last four on behind those ``above``.

    A ``uint32x4``: lane l has a nibble of each of its eight numbers, that of ``quad`` the
    ``quad``-th from below.
    """
    bits = v.bind(T.reinterpret(f"uint32x{QUAD}", floats))
    if above is None:
        return bits
    return v.bind(neon.shift_right_insert(above, bits, WORD_BITS - KEPT * (quad + 1)))


def places(signs: Expr) -> Expr:
    """Bits at the places of ``SIGNS``, the rest 0, each moved to its place in a packed word.

    The word is the sum of the lanes.
    """
    distance = T.ramp(T.int32(KEPT - 1), T.int32(-1), QUAD)
    return v.bind(signs >> T.reinterpret(f"uint32x{QUAD}", distance))


def words_of(rows: list[Expr]) -> Expr:
    """Packed words of four such vectors, a ``uint32x4``."""
    low, high = (v.bind(neon.add_pairs(places(a), places(b))) for a, b in (rows[:2], rows[2:]))
    return v.bind(neon.add_pairs(low, high))


def only(bits: Expr, which: int) -> Expr:
    """The bits of ``which``, SIGNS or another, moved to the places of signs."""
    chosen = bits & v.splat(which, QUAD, "uint32")
    moved = (SIGNS // which).bit_length() - 1
    return chosen << v.splat(moved, QUAD, "uint32") if moved else chosen
