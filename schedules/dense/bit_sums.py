"""Sums of 128 columns at once, as planes of bits: full and half adders on vectors.

A number of each of 128 columns is a list of vectors uint32x4, plane p with bit p of all of them:
bit j of lane i belongs to column 32 i + j, so that a plane is four words of packed output.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import load, local, rounded, store

Expr = Any

LANES = 4
PLANE = f"uint32x{LANES}"


def kept(vector: Expr) -> Expr:
    """A vector, computed once and passed on through memory, which LLVM keeps in a register.

    TVM opens bound names when it simplifies: of a tree of adders it would make exponentially many.
    """
    dtype, lanes = str(vector.ty.dtype).split("x")
    place = local((int(lanes),), dtype)
    store(place, vector, 0, lanes=int(lanes))
    return load(place, 0, lanes=int(lanes))


def opaque(plane: Expr) -> Expr:
    """A plane as it is, of which LLVM knows nothing."""
    return kept(T.reinterpret(PLANE, rounded(T.reinterpret(f"float32x{LANES}", plane))))


def select(mask: Expr, ones: Expr, zeros: Expr) -> Expr:
    """Bits of ``ones`` where ``mask`` has ones, else of ``zeros``; one instruction (``bsl``).

    Only of a mask that LLVM does not know: of ``x ^ y`` it makes three instructions of its own.
    """
    return kept((mask & ones) | (~mask & zeros))


_IR = """
define <4 x i32> @gsb_neon_merge(<4 x i32> %kept, <4 x i32> %bits, <4 x i32> %mask) {
  %merged = call <4 x i32> asm "bit $0.16b, $2.16b, $3.16b", "=w,0,w,w"(
      <4 x i32> %kept, <4 x i32> %bits, <4 x i32> %mask)
  ret <4 x i32> %merged
}
"""


@contextmanager
def adding() -> Iterator[None]:
    """Code below may add planes."""
    with T.attr(0, "pragma_import_llvm", _IR):
        yield


def merge(kept_bits: Expr, bits: Expr, mask: Expr) -> Expr:
    """``kept_bits`` with those of ``bits`` where ``mask`` has ones, in the register of the first.

    LLVM's own selection puts its result anywhere and copies an operand there, once in three times.
    """
    return kept(T.call_extern(PLANE, "gsb_neon_merge", kept_bits, bits, mask))


def full_add(x: Expr, y: Expr, z: Expr) -> tuple[Expr, Expr]:
    """Sum and carry of three bits: three instructions."""
    differ = kept(x ^ y)
    return kept(differ ^ z), merge(x, z, differ)


def half_add(x: Expr, y: Expr) -> tuple[Expr, Expr]:
    """Sum and carry of two bits."""
    return kept(x ^ y), kept(x & y)


class BitSums:
    """A sum modulo ``2**len(planes)`` that numbers are added to.

    Of each weight at most two planes wait, and a third is added at once, its carry before anything
    else: few vectors live at a time.
    """

    def __init__(self, planes: Sequence[Expr]) -> None:
        self.waiting = [[plane] for plane in planes]

    def add(self, first: int, number: Sequence[Expr]) -> None:
        """Add a number of a few planes, the lowest of weight ``first``."""
        for weight, plane in enumerate(number, first):
            self._add(weight, plane)

    def _add(self, weight: int, plane: Expr) -> None:
        if weight == len(self.waiting):
            return
        here = self.waiting[weight]
        here.append(plane)
        if len(here) == 3:
            total, carry = full_add(*here)
            self.waiting[weight] = [total]
            self._add(weight + 1, carry)

    def planes(self) -> list[Expr]:
        """The sum, one plane of each weight; nothing waits any longer."""
        for weight in range(len(self.waiting)):
            if len(self.waiting[weight]) == 2:
                total, carry = half_add(*self.waiting[weight])
                self.waiting[weight] = [total]
                self._add(weight + 1, carry)
        return [plane for (plane,) in self.waiting]
