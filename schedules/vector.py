"""Words of the kernel writer: vectors, masks and reductions as TIR, the same on every CPU.

Kernels are written out as vector TIR with TVM's IRBuilder. A vector may be wider than the
machine's (a 32-lane compare whose mask is one packed word): LLVM splits it. What LLVM may *not* do
is contract a multiply and an add into a fused multiply-add, because the graph rounds twice: TVM's
code generator allows it everywhere, so every product that meets an add passes through
:func:`rounded`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from tvm import s_tir, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Tensor

Expr = Any
Buffer = Any

LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4  # the first has 9 bits, so n times it is exact
ROUNDING = 12582912.0  # 1.5 * 2**23: adding it rounds to an integer, half to even
EXP_TAYLOR = (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5)  # of r**7 down to r**2

EXP_LOW = -87.0  # below, exp is denormal; softmax terms there are < 2**-125 of the largest


def prim_func(tensors: Sequence[Tensor], body: Callable[..., None]) -> Any:
    """PrimFunc whose arguments are ``tensors``; ``body`` receives one buffer for each.

    The function is marked ``noalias``: outputs never overlap inputs.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            T.func_attr({"global_symbol": "main", "tirx.noalias": True})
            body(*[T.arg(name, T.buffer(shape, dtype)) for name, shape, dtype in tensors])
    return in_root_block(builder.get())


def in_root_block(func: Any) -> Any:
    """``func`` with its body in one block, as Relax's passes expect of a called PrimFunc."""
    root = s_tir.SBlock([], [], [], "root", func.body)
    return func.with_body(s_tir.SBlockRealize([], True, root))


def splat(value: Expr, lanes: int, dtype: str = "float32") -> Expr:
    """Vector whose lanes all hold ``value`` (a scalar expression or a Python number)."""
    if isinstance(value, int | float):
        value = tirx.const(value, dtype)
    return T.broadcast(value, lanes)


def load(buffer: Buffer, *index: Expr, lanes: int) -> Expr:
    """``lanes`` neighbours of ``buffer`` from ``index`` on, along the last axis."""
    return buffer[(*index[:-1], _neighbours(index[-1], lanes))]


def store(buffer: Buffer, value: Expr, *index: Expr, lanes: int) -> None:
    """Write ``lanes`` neighbours along the last axis."""
    T.buffer_store(buffer, value, [*index[:-1], _neighbours(index[-1], lanes)])


def _neighbours(first: Expr, lanes: int) -> Expr:
    return first if lanes == 1 else T.ramp(first, 1, lanes)


def put(buffer: Buffer, value: Expr, *index: Expr) -> None:
    """Write one element."""
    T.buffer_store(buffer, value, list(index))


def bind(value: Expr) -> Expr:
    """Name ``value`` so that it is computed once."""
    return T.Bind(value)


def rounded(product: Expr) -> Expr:
    """``product``, rounded before its next use: forbids contraction into a fused multiply-add."""
    return tirx.call_llvm_pure_intrin(product.ty.dtype, "llvm.arithmetic.fence", product)


def hidden(word: Expr) -> Expr:
    """A uint32 as it is, of which LLVM knows nothing, constant though it be."""
    fenced = rounded(tirx.call_intrin("float32", "tirx.reinterpret", word))
    return tirx.call_intrin("uint32", "tirx.reinterpret", fenced)


def bits_of(mask: Expr, lanes: int) -> Expr:
    """The lanes of a boolean vector as an unsigned integer of ``lanes`` bits, lane 0 lowest.

    With 32 lanes this is one packed word on every machine.
    """
    return tirx.call_intrin(f"uint{lanes}", "tirx.reinterpret", mask)


def lanes_of(word: Expr, lanes: int) -> Expr:
    """Inverse of :func:`bits_of`: bit i of an unsigned integer of ``lanes`` bits as lane i."""
    return tirx.call_intrin(f"boolx{lanes}", "tirx.reinterpret", word)


def popcount(vector: Expr) -> Expr:
    """Set bits of every element."""
    return T.popcount(vector)


def halves(vector: Expr, lanes: int) -> tuple[Expr, Expr]:
    """Lower and upper half of a vector of ``lanes`` lanes."""
    half = lanes // 2
    return (
        T.Shuffle([vector], list(range(half))),
        T.Shuffle([vector], list(range(half, lanes))),
    )


def reduce(vector: Expr, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """All lanes combined pairwise by halves into one scalar."""
    while lanes > 1:
        low, high = halves(bind(vector), lanes)
        vector, lanes = combine(low, high), lanes // 2
    return vector


def add(a: Expr, b: Expr) -> Expr:
    """Sum, for :func:`reduce`."""
    return a + b


def maximum(a: Expr, b: Expr) -> Expr:
    """Larger of two, the second where one is NaN: one machine instruction.

    Not a ``T.Select``: TVM's simplifier assumes every condition in turn and opens bound names, so
    that a tree of such selections takes minutes to compile.
    """
    return tirx.max(a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    """Smaller of two, the second where one is NaN."""
    return tirx.min(a, b)


def local(shape: Sequence[int], dtype: str) -> Buffer:
    """Scratch on the stack, which LLVM can keep in registers; below 1 kB only.

    TVM leaves an allocation on the stack where its scope is "global" and it is that small; any
    other, of scope "local" too, becomes a call for workspace. Accumulators of more than 1 kB are
    several buffers.
    """
    return T.alloc_buffer(tuple(shape), dtype, scope="global")


def workspace(shape: Sequence[int], dtype: str) -> Buffer:
    """Scratch from the runtime's workspace pool: for anything above a few kilobytes."""
    return T.alloc_buffer(tuple(shape), dtype, scope="global")


def prefetch(buffer: Buffer, *index: Expr) -> None:
    """Ask for the cache line of an element, which will be read soon."""
    read, keep, data = 0, 3, 1
    address = T.address_of(buffer[index])
    T.evaluate(tirx.call_intrin("void", "tirx.prefetch", address, read, keep, data))


def exp(x: Expr, lanes: int) -> Expr:
    """exp of a float32 vector within 1 ulp for -87 <= x <= 0; 0 below; NaN is not kept.

    Cody-Waite reduction by ln 2 in two parts and 1 + (r + r**2 q(r)) on [-ln2/2, ln2/2];
    q has the Taylor coefficients up to r**7 / 7!, whose remainder there is below 2**-27.
    """

    def const(value: float) -> Expr:
        return splat(value, lanes)

    clipped = bind(maximum(x, const(EXP_LOW)))
    scaled = rounded(clipped * const(LOG2_E))
    magic = const(ROUNDING)
    n = bind(rounded(scaled + magic) - magic)
    r = bind(clipped - rounded(n * const(LN2_HIGH)) - rounded(n * const(LN2_LOW)))
    q = const(EXP_TAYLOR[0])
    for coefficient in EXP_TAYLOR[1:]:
        q = bind(q * r + const(coefficient))
    p = const(1.0) + (r + bind(r * r) * q)
    exponent = (T.cast(n, f"int32x{lanes}") + splat(127, lanes, "int32")) << splat(
        23, lanes, "int32"
    )
    power = T.reinterpret(f"float32x{lanes}", exponent)
    return T.Select(x < const(EXP_LOW), const(0.0), p * power)
