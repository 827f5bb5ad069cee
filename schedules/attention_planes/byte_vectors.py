"""Vectors of 16 bytes on Neon: tables, and floats as their bytes."""

from collections.abc import Sequence

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.counting import reinterpret
from gsb_tvm.schedules.neon import BYTES

QUAD = 4  # numbers of 32 bits in a vector
ORDERED = (False, True)  # the even elements, then the odd ones


def look_up(table: Sequence[v.Expr], index: v.Expr) -> v.Expr:
    """Bytes of a table of up to four vectors; 0 where the index lies beyond (tbl)."""
    name = f"llvm.aarch64.neon.tbl{len(table)}"
    return tirx.call_llvm_pure_intrin(f"uint8x{BYTES}", name, *table, index)


def floats(planes: Sequence[v.Expr]) -> list[v.Expr]:
    """Four float32x4 from the vectors of their lowest bytes, of the next and so on (zip)."""
    pairs = [_in_turn(planes[i], planes[i + 1], f"uint8x{BYTES}") for i in (0, 2)]
    vectors = [
        vector
        for low, high in zip(*pairs, strict=True)
        for vector in _in_turn(low, high, "uint16x8")
    ]
    return [v.bind(reinterpret(vector, f"float32x{QUAD}")) for vector in vectors]


def byte_planes(vectors: Sequence[v.Expr]) -> list[v.Expr]:
    """Inverse of :func:`floats` (uzp)."""
    planes = []
    for odd in ORDERED:
        low, high = [every_second(vectors[i : i + 2], "uint16x8", odd=odd) for i in (0, 2)]
        planes += [every_second((low, high), f"uint8x{BYTES}", odd=each) for each in ORDERED]
    return planes


def every_second(pair: Sequence[v.Expr], dtype: str, *, odd: bool) -> v.Expr:
    """Every second element of two vectors taken for ``dtype``: the odd ones or the even (uzp)."""
    vectors, elements = _as(pair, dtype)
    return v.bind(T.Shuffle(vectors, list(range(int(odd), 2 * elements, 2))))


def _in_turn(low: v.Expr, high: v.Expr, dtype: str) -> list[v.Expr]:
    """Elements of two vectors in turn, as two vectors."""
    vectors, elements = _as((low, high), dtype)
    order = [i + side for i in range(elements) for side in (0, elements)]
    return [v.bind(T.Shuffle(vectors, part)) for part in (order[:elements], order[elements:])]


def _as(pair: Sequence[v.Expr], dtype: str) -> tuple[list[v.Expr], int]:
    return [v.bind(reinterpret(vector, dtype)) for vector in pair], int(dtype.split("x")[1])


def reduced(operation: str, vector: v.Expr) -> v.Expr:
    """All elements by an operation of LLVM's: "smax" and "umin" of integers, "fmax" of floats."""
    element = str(vector.ty.dtype).split("x")[0]
    return tirx.call_llvm_pure_intrin(element, f"llvm.vector.reduce.{operation}", vector)
