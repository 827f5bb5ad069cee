"""AMX tile instructions as TIR: eight registers of 16 rows of 64 bytes, and products of two.

A tile register is named by its number, so LLVM neither allocates nor spills one. To LLVM each
instruction may read and write any memory, so stores of operands and loads of sums stay where they
are written.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18, and
volume 2, LDTILECFG and TDPBUSD. Linux lets a process use tiles once it has asked
(:func:`gsb_tvm.targets.permission.ask_for_tiles`).
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.dense.tiles import AMX_ROW_BYTES, AMX_ROWS
from gsb_tvm.schedules.vector import put, splat, store

Expr = Any
Buffer = Any

COLUMNS = AMX_ROW_BYTES // 4  # int32 sums in a row
TILES = 8


def configure(scratch: Buffer, *index: Expr) -> None:
    """Give all tiles their full size, and clear them; overwrites 64 bytes of int8 scratch.

    Scratch of its own on the stack would share its place with an accumulator, which LLVM could no
    longer keep in registers.
    """

    def write(value: int, at: int) -> None:
        put(scratch, T.int8(value), *index[:-1], index[-1] + at)

    # LDTILECFG: byte 0 the palette, from 16 on a word per tile of bytes in a row, from 48 the rows.
    store(scratch, splat(0, 64, "int8"), *index, lanes=64)
    write(1, 0)
    for tile in range(TILES):
        write(AMX_ROW_BYTES, 16 + 2 * tile)
        write(AMX_ROWS, 48 + tile)
    _emit("ldtilecfg", _address(scratch, index))


def release() -> None:
    """Give the tiles back, so that the system need not save them."""
    _emit("tilerelease")


def clear(tile: int) -> None:
    """Set a tile to zero."""
    _emit("tilezero", T.int8(tile))


def load_tile(tile: int, buffer: Buffer, *index: Expr, stride_bytes: int = AMX_ROW_BYTES) -> None:
    """Read 16 rows, the first at ``buffer[index]``."""
    _emit("tileloadd64", T.int8(tile), _address(buffer, index), T.int64(stride_bytes))


def store_tile(tile: int, buffer: Buffer, *index: Expr, stride_bytes: int) -> None:
    """Write 16 rows, the first to ``buffer[index]``."""
    _emit("tilestored64", T.int8(tile), _address(buffer, index), T.int64(stride_bytes))


def multiply(total: int, left: int, right: int, *, signed: bool) -> None:
    """``total[m, n] += sum_k left[m, k] * right[k, n]``, int32.

    left is (16, 64) int8 where ``signed``, else uint8. right is (64, 16) int8 with four
    neighbouring k of a column in one doubleword: (16, 16, 4).
    """
    name = "tdpbssd" if signed else "tdpbusd"
    _emit(name, T.int8(total), T.int8(left), T.int8(right))


def _address(buffer: Buffer, index: tuple[Expr, ...]) -> Expr:
    """Address of an element, and the word to TVM that its neighbours are used too.

    From the address of an element TVM concludes that only that one is, and cuts an allocation down
    to what else it sees used.
    """
    offset: Expr = 0
    for extent, i in zip(buffer.shape, index, strict=True):
        offset = offset * extent + i
    return buffer.access_ptr("rw", offset=offset)


def _emit(name: str, *arguments: Expr) -> None:
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *arguments))
