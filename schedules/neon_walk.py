"""Loads of four vectors by one instruction of Neon that moves its pointer on (``ld1``).

TIR has no values of several vectors, and LLVM makes pairs of loads of whatever it is given. So the
instruction is brought along as LLVM IR that is always inlined: it reads through a pointer in memory
(``place``) and writes four vectors to memory, all of which LLVM then keeps in registers. An
assembly of no instructions stands where a pointer moves on; without it LLVM would count all of them
from the first one, by an addition each.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

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


def _put(vectors: int, stride: int) -> str:
    """A function that stores vectors and moves its pointer on, the first two last (``stp``)."""
    values = ", ".join(f"<4 x i32> %v{i}" for i in range(vectors))
    lines = [f"define void @{_put_name(vectors, stride)}(ptr %place, {values}) {{"]
    lines.append("  %to = load ptr, ptr %place, align 8")
    for i in [*range(2, vectors), *range(min(2, vectors))]:
        lines.append(f"  %to{i} = getelementptr i8, ptr %to, i64 {16 * i}")
        lines.append(f"  store <4 x i32> %v{i}, ptr %to{i}, align 4")
    lines.append(f"  %next = getelementptr i8, ptr %to, i64 {4 * stride}")
    lines.append('  %unknown = call ptr asm "", "=r,0"(ptr %next)')
    return "\n".join([*lines, "  store ptr %unknown, ptr %place, align 8", "  ret void", "}", ""])


def _put_name(vectors: int, stride: int) -> str:
    return f"gsb_neon_put_{vectors}_{stride}"


@contextmanager
def walking(
    fences: Iterable[tuple[int, int]] = (), trails: Iterable[tuple[int, int]] = ()
) -> Iterator[None]:
    """Code below may use :class:`Walk`, :func:`unknown`, and such fences and trails."""
    code = [_IR, *[_fence(*counts) for counts in sorted(set(fences))]]
    code += [_put(*shape) for shape in sorted(set(trails))]
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


class Place:
    """A pointer in memory.

    To be made where it lives as long as its kernel: TVM puts a place that is used for a while where
    something else was before, a vector perhaps, and LLVM keeps the pointer in its lanes.
    """

    def __init__(self) -> None:
        self.place = local((1,), "uint64")

    def begin(self, buffer: Buffer, *index: Expr) -> Self:
        """Go on from ``buffer[index]``."""
        place, first = T.address_of(self.place[0]), T.address_of(buffer[index])
        T.evaluate(T.call_extern("void", "gsb_neon_begin", place, first))
        return self


class Walk(Place):
    """Reads vectors of 4 x 32 bits, four at a time."""

    def four(self) -> Buffer:
        """The next four vectors, uint32 (16,)."""
        to = local((4 * LANES,), "uint32")
        place, target = T.address_of(self.place[0]), T.address_of(to[0])
        T.evaluate(T.call_extern("void", "gsb_neon_load", place, target))
        return to


class Trail(Place):
    """Writes groups of ``vectors`` vectors of 4 x 32 bits, ``stride`` words apart."""

    def __init__(self, vectors: int, stride: int) -> None:
        super().__init__()
        self.name = _put_name(vectors, stride)

    def put(self, vectors: Sequence[Expr]) -> None:
        """Write the next group."""
        T.evaluate(T.call_extern("void", self.name, T.address_of(self.place[0]), *vectors))
