"""Loads of four vectors by one instruction of Neon that moves its pointer on (``ld1``).

TIR has no values of several vectors, and LLVM makes pairs of loads of whatever it is given. So the
instruction is brought along as LLVM IR that is always inlined: it reads through a pointer in memory
(``place``) and writes four vectors to memory, all of which LLVM then keeps in registers. An
assembly of no instructions stands where a pointer moves on; without it LLVM would count all of them
from the first one, by an addition each.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import local

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

define i64 @gsb_neon_unknown(i64 %number) {{
  %unknown = call i64 asm "", "=r,0"(i64 %number)
  ret i64 %unknown
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


def _fence(pointers: int, vectors: int) -> str:
    """A function that hands on what it is shown through an assembly of no instructions."""
    kinds = ["ptr"] * pointers + ["<16 x i8>"] * vectors
    shown = range(len(kinds))
    parameters = ", ".join(f"ptr %p{i}" for i in shown)
    outputs = ["=r"] * pointers + ["=w"] * vectors
    constraints = ",".join([*outputs, *map(str, shown)])
    struct = "{" + ", ".join(kinds) + "}"
    values = ", ".join(f"{kind} %v{i}" for i, kind in enumerate(kinds))
    lines = [f"define void @{_fence_name(pointers, vectors)}({parameters}) {{"]
    lines += [f"  %v{i} = load {kind}, ptr %p{i}, align 8" for i, kind in enumerate(kinds)]
    lines.append(f'  %all = call {struct} asm "", "{constraints}"({values})')
    for i, kind in enumerate(kinds):
        lines.append(f"  %w{i} = extractvalue {struct} %all, {i}")
        lines.append(f"  store {kind} %w{i}, ptr %p{i}, align 8")
    return "\n".join([*lines, "  ret void", "}", ""])


def _fence_name(pointers: int, vectors: int) -> str:
    return f"gsb_neon_fence_{pointers}_{vectors}"


@contextmanager
def walking(*fences: tuple[int, int]) -> Iterator[None]:
    """Code below may use :class:`Walk`, :func:`unknown`, and fences of so many places."""
    code = [_IR, *[_fence(*counts) for counts in sorted(set(fences))]]
    with T.attr(0, "pragma_import_llvm", "\n".join(code)):
        yield


def fence(walks: Sequence["Walk"], vectors: Sequence[Any]) -> None:
    """Let nothing that uses ``walks`` or elements of ``vectors`` be done before what stands here.

    LLVM's order of a long piece of code takes more registers than there are.
    """
    places = [T.address_of(x) for x in (*[walk.place[0] for walk in walks], *vectors)]
    T.evaluate(T.call_extern("void", _fence_name(len(walks), len(vectors)), *places))


def unknown(number: Expr) -> Expr:
    """An int64 of which LLVM knows nothing: what is reckoned with it is reckoned once."""
    return T.call_extern("int64", "gsb_neon_unknown", number)


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

    def four(self) -> Buffer:
        """The next four vectors, uint32 (16,)."""
        to = local((4 * LANES,), "uint32")
        place, target = T.address_of(self.place[0]), T.address_of(to[0])
        T.evaluate(T.call_extern("void", "gsb_neon_load", place, target))
        return to
