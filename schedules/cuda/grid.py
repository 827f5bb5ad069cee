"""Launches of a CUDA kernel, and what all of their blocks share.

A CUDA kernel is a PrimFunc whose root block holds nothing but allocations and *launches*, in order:
when one begins, all blocks of the one before have ended. Buffers allocated between launches lie in
global memory and belong to all blocks. Those whose names begin with ``STATE`` are zero before the
first call, and every call leaves zeros.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.phases import STATE, SYNCHRONIZED
from gsb_tvm.dialect.specs import Tensor
from gsb_tvm.schedules import vector
from gsb_tvm.schedules.vector import Buffer, Expr, bind

WARP = 32
"""Threads that execute together."""

_SOURCE = Path(__file__).with_name("device.cuh").read_text(encoding="utf-8")


def prim_func(tensors: Sequence[Tensor], body: Callable[[dict[str, Buffer]], None]) -> Any:
    """PrimFunc whose arguments are ``tensors``; ``body`` receives their buffers by name."""

    def write(*buffers: Buffer) -> None:
        body({name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)})

    return vector.prim_func(tensors, write).with_attr(SYNCHRONIZED, True)


@dataclass(frozen=True)
class Place:
    """Where a thread is: its block along up to three axes, its number in the block."""

    block: tuple[Expr, ...]
    thread: Expr
    threads: int
    warp: Expr
    lane: Expr


@contextmanager
def launch(blocks: Sequence[int], threads: int) -> Iterator[Place]:
    """What every thread of ``blocks`` (x, y, z) of ``threads`` does; a multiple of a warp."""
    assert threads % WARP == 0
    with ExitStack() as stack:
        axes = [
            stack.enter_context(T.launch_thread(f"blockIdx.{axis}", count))
            for axis, count in zip("xyz", blocks, strict=False)
        ]
        thread = stack.enter_context(T.launch_thread("threadIdx.x", threads))
        warp, lane = bind(thread // WARP), bind(thread % WARP)
        yield Place(tuple(axes), thread, threads, warp, lane)


def scratch(name: str, shape: Sequence[int], dtype: str) -> Buffer:
    """Global memory from one launch to the next."""
    return _named(name, T.alloc_buffer(tuple(shape), dtype, scope="global"))


def state(name: str, count: int) -> Buffer:
    """``count`` int32 in global memory, zero before every call and to be zero behind it."""
    return scratch(f"{STATE}{name}", (count,), "int32")


@contextmanager
def last_of(blocks: int, ended: Expr) -> Iterator[None]:
    """What the last of ``blocks`` does; one thread of each comes here, behind all that it wrote.

    ``ended`` points to an int32 of a state that counts them, which this block must make 0 again.
    """
    do("gsb_fence")
    before = bind(call("gsb_atomic_add", ended, T.int32(1), dtype="int32"))
    with T.If(before == blocks - 1), T.Then():
        yield


def shared(shape: Sequence[int], dtype: str) -> Buffer:
    """Memory of a block."""
    return T.alloc_buffer(tuple(shape), dtype, scope="shared")


def registers(count: int, dtype: str) -> Buffer:
    """Of a thread; every index must be a number at compile time."""
    return T.alloc_buffer((count,), dtype, scope="local")


def loop(count: int) -> Any:
    """``count`` rounds that stay a loop in machine code, however few they are."""
    return T.serial(count, annotations={"disable_unroll": True})


def _named(name: str, buffer: Buffer) -> Buffer:
    IRBuilder.name(name, buffer)
    return buffer


def synchronize() -> None:
    """Wait for all threads of the block, and see what they wrote."""
    T.evaluate(T.tvm_storage_sync("shared"))


def call(name: str, *args: Expr, dtype: str = "void") -> Expr:
    """Call a function of ``device.cuh``."""
    return T.cuda.func_call(name, *args, source_code=_SOURCE, return_type=dtype)


def do(name: str, *args: Expr) -> None:
    """Call a function of ``device.cuh`` that returns nothing."""
    T.evaluate(call(name, *args))


def address(buffer: Buffer, *index: Expr) -> Expr:
    """Pointer to an element."""
    return T.address_of(buffer[index])


def each(place: Place, count: int, body: Callable[[Expr], None]) -> None:
    """``body(unit)`` for ``count`` units that the threads of a block share."""
    rounds, rest = divmod(count, place.threads)
    for i in range(rounds):
        body(bind(place.thread + i * place.threads))
    if rest:
        with T.If(place.thread < rest), T.Then():
            body(bind(place.thread + rounds * place.threads))
