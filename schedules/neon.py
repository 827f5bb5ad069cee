"""Instructions of Neon that LLVM does not find by itself."""

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules.vector import bind, halves

Expr = Any
BYTES = 16  # of a vector


def add_pairs(low: Expr, high: Expr) -> Expr:
    """Sums of neighbouring integers of ``low``, then of ``high`` (``addp``)."""
    return tirx.call_llvm_pure_intrin(low.ty.dtype, "llvm.aarch64.neon.addp", low, high)


def add_float_pairs(low: Expr, high: Expr) -> Expr:
    """Sums of neighbouring floats of ``low``, then of ``high`` (``faddp``)."""
    return tirx.call_llvm_pure_intrin(low.ty.dtype, "llvm.aarch64.neon.faddp", low, high)


def shift_right_insert(kept: Expr, vector: Expr, shift: int) -> Expr:
    """``vector >> shift`` in each integer, its highest ``shift`` bits from ``kept`` (``sri``)."""
    name, amount = "llvm.aarch64.neon.vsri", tirx.const(shift, "int32")
    return tirx.call_llvm_pure_intrin(kept.ty.dtype, name, kept, vector, amount)


def larger(a: Expr, b: Expr) -> Expr:
    """Larger floats of two vectors, the number where one is NaN (``fmaxnm``)."""
    return tirx.call_llvm_pure_intrin(a.ty.dtype, "llvm.maxnum", a, b)


def smaller(a: Expr, b: Expr) -> Expr:
    """Smaller floats of two vectors, the number where one is NaN (``fminnm``)."""
    return tirx.call_llvm_pure_intrin(a.ty.dtype, "llvm.minnum", a, b)


def smallest(vector: Expr) -> Expr:
    """Smallest of unsigned integers (``uminv``)."""
    element = str(vector.ty.dtype).split("x")[0]
    return tirx.call_llvm_pure_intrin(element, "llvm.vector.reduce.umin", vector)


def widen_pairs(counts: Expr) -> Expr:
    """``uint16x8``: sums of neighbouring bytes of a ``uint8x16`` (``uaddlp``, ``uadalp``)."""
    name = "llvm.aarch64.neon.uaddlp.v8i16.v16i8"
    return tirx.call_llvm_pure_intrin("uint16x8", name, counts)


def packed(masks: Sequence[Expr]) -> Expr:
    """Packed words of one, two or four boolean vectors of 32 lanes, lane 0 the lowest bit.

    LLVM goes through such a vector lane by lane, four instructions each. Here lanes become bytes,
    each the bit of its place in a byte, and neighbouring bytes are added three times. Four masks
    share these additions: 7 instead of 12.

    Returns
    -------
    Expr
        A ``uint32``, or ``uint32x2`` or ``uint32x4``.
    """
    assert len(masks) in (1, 2, 4)
    vectors = [part for mask in masks for part in _bits_of_bytes(mask)]
    while len(vectors) > 1:
        vectors = [bind(add_pairs(a, b)) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    (total,) = vectors
    for _ in range({1: 2, 2: 1, 4: 0}[len(masks)]):
        total = bind(add_pairs(total, total))
    words = bind(T.reinterpret("uint32x4", total))
    if len(masks) == 4:
        return words
    return T.Shuffle([words], list(range(len(masks))))


def _bits_of_bytes(mask: Expr) -> list[Expr]:
    """Two vectors of bytes: 1 << (i % 8) where lane i is set, else 0."""
    eight = tirx.const(0x8040201008040201, "uint64")
    places = T.reinterpret(f"uint8x{WORD_BITS}", T.broadcast(eight, WORD_BITS // 8))
    zeros = T.broadcast(tirx.const(0, "uint8"), WORD_BITS)
    return [bind(half) for half in halves(bind(T.Select(mask, places, zeros)), WORD_BITS)]
