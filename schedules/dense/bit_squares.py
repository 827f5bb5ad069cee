"""Transposition of squares of bits: vectors of 128 bits, exchanged in rounds."""

from collections.abc import Sequence
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.dense.bit_sums import kept
from gsb_tvm.schedules.vector import splat

Expr = Any

_BITS = 128
_BYTE = 8


def exchange(rows: list[Expr], indices: Sequence[int], distance: int) -> None:
    """A round: of vectors ``distance`` apart, squares beside the diagonal change places.

    Bits of the second one whose place has bit ``distance`` clear go to the first one, ``distance``
    places up, and bits of the first one that stand there go to the second one. Rounds of all powers
    of two below n transpose n vectors in each n places, in any order. A round takes two
    instructions for whole bytes, three for halves and four for less.
    """
    pairs = [(i, i + distance) for i in indices if not i & distance]
    for i, j in pairs:
        dtype = rows[i].ty.dtype
        both = _interleave if distance >= _BYTE else _merge
        for k, value in zip((i, j), both(rows[i], rows[j], distance), strict=True):
            rows[k] = kept(T.reinterpret(dtype, value))


def _interleave(a: Expr, b: Expr, width: int) -> list[Expr]:
    """Even elements of both, and odd ones (``trn1``, ``trn2``)."""
    lanes = _BITS // width
    a, b = (kept(T.reinterpret(f"uint{width}x{lanes}", x)) for x in (a, b))
    orders = [[x for k in range(part, lanes, 2) for x in (k, lanes + k)] for part in (0, 1)]
    return [kept(T.Shuffle([a, b], order)) for order in orders]


def _merge(a: Expr, b: Expr, distance: int) -> list[Expr]:
    """Inside bytes, where halves are inserted by one instruction (``sli``, ``sri``)."""
    lanes = _BITS // _BYTE
    a, b = (kept(T.reinterpret(f"uint8x{lanes}", x)) for x in (a, b))
    keep = sum(1 << k for k in range(_BYTE) if not k & distance)
    mask, shift = (splat(value, lanes, "uint8") for value in (keep, distance))
    first = (a & mask) | ((b << shift) & ~mask)
    return [kept(first), kept(((a >> shift) & mask) | (b & ~mask))]


def turned(rows: Sequence[Expr]) -> list[Expr]:
    """Four vectors of four words, transposed."""
    a, b, c, d = rows
    low, high = [0, 4, 1, 5], [2, 6, 3, 7]
    ac = [kept(T.Shuffle([a, c], order)) for order in (low, high)]
    bd = [kept(T.Shuffle([b, d], order)) for order in (low, high)]
    return [
        kept(T.Shuffle([x, y], order)) for x, y in zip(ac, bd, strict=True) for order in (low, high)
    ]
