"""Loads of four vectors by one instruction of Neon that moves its pointer on (``ld1``).

TIR has no values of several vectors, and LLVM makes pairs of loads of whatever it is given. So the
instruction is brought along as LLVM IR that is always inlined: it reads through a pointer in memory
(``place``) and writes four vectors to memory, all of which LLVM then keeps in registers. An
assembly of no instructions stands where a pointer moves on; without it LLVM would count all of them
from the first one, by an addition each.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import load, local

Expr = Any
Buffer = Any

LANES = 4
_FOUR = "{<4 x i32>, <4 x i32>, <4 x i32>, <4 x i32>}"
_IR = f"""
declare {_FOUR} @llvm.aarch64.neon.ld1x4.v4i32.p0(ptr)

define void @gsb_neon_begin(ptr %place, ptr %first) {{
  %unknown = call ptr asm "", "=r,0"(ptr %first)
  store ptr %unknown, ptr %place, align 8
  ret void
}}

define void @gsb_neon_load(ptr %place, ptr %to) {{
  %from = load ptr, ptr %place, align 8
  %four = call {_FOUR} @llvm.aarch64.neon.ld1x4.v4i32.p0(ptr %from)
  %next = getelementptr i8, ptr %from, i64 64
  %unknown = call ptr asm "", "=r,0"(ptr %next)
  store ptr %unknown, ptr %place, align 8
  %v0 = extractvalue {_FOUR} %four, 0
  %v1 = extractvalue {_FOUR} %four, 1
  %v2 = extractvalue {_FOUR} %four, 2
  %v3 = extractvalue {_FOUR} %four, 3
  %to1 = getelementptr i8, ptr %to, i64 16
  %to2 = getelementptr i8, ptr %to, i64 32
  %to3 = getelementptr i8, ptr %to, i64 48
  store <4 x i32> %v0, ptr %to, align 4
  store <4 x i32> %v1, ptr %to1, align 4
  store <4 x i32> %v2, ptr %to2, align 4
  store <4 x i32> %v3, ptr %to3, align 4
  ret void
}}
"""


@contextmanager
def walking() -> Iterator[None]:
    """Code below may use :class:`Walk`."""
    with T.attr(0, "pragma_import_llvm", _IR):
        yield


class Walk:
    """Reads vectors of 4 x 32 bits, four at a time.

    To be made where it lives as long as its kernel: TVM puts a place that is used for a while where
    something else was before, a vector perhaps, and LLVM keeps the pointer in its lanes.
    """

    def __init__(self) -> None:
        self.place = local((1,), "uint64")

    def begin(self, buffer: Buffer, *index: Expr) -> "Walk":
        """Read from ``buffer[index]`` on."""
        first = T.address_of(buffer[index])
        T.evaluate(T.call_extern("void", "gsb_neon_begin", T.address_of(self.place[0]), first))
        return self

    def four(self) -> list[Expr]:
        """The next four vectors, uint32x4."""
        to = local((4 * LANES,), "uint32")
        place, target = T.address_of(self.place[0]), T.address_of(to[0])
        T.evaluate(T.call_extern("void", "gsb_neon_load", place, target))
        return [load(to, LANES * i, lanes=LANES) for i in range(4)]
