"""Packed bits as the bytes of AMX tiles.

Activations become {0, 1}, or {-1, 0, 1} where they are masked signs. Weights become ±1, and 0 where
a masked weight is zero; or the negative of that, for sums that are subtracted. Padding bits of
activations are 0 and so are their bytes, hence a weight's bytes may be anything there.
"""

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules.dense.amx_tiles import COLUMNS
from gsb_tvm.schedules.dense.formula import Part
from gsb_tvm.schedules.dense.operands import Plane
from gsb_tvm.schedules.dense.tiles import AMX_ROW_BYTES, AMX_ROWS, AMX_STEP_WORDS
from gsb_tvm.schedules.vector import bind, lanes_of, local, popcount, splat, store

Expr = Any
Buffer = Any

ROWS_PER_WORD = AMX_ROWS // AMX_STEP_WORDS
BYTES = f"int8x{AMX_ROW_BYTES}"

# Bit matrices of GF2P8AFFINEQB (volume 2 of Intel's manual): bit i of a result is the parity of
# the byte and the matrix's byte 7 - i, XOR bit i of a constant.
SIGN = (0x0001010101010101, 0xFF)  # bit 0 set: 0x01, else 0xFF
NEGATED_SIGN = (0x0001010101010101, 1)  # the other way round
ALL_ONES = (0x0101010101010101, 0)  # bit 0 set: 0xFF, else 0x00


def spread_tokens(
    plane: Plane, out: Buffer, batch: Expr, words: int, tokens: int, tile: Expr
) -> None:
    """Write the 16 tokens of a tile as rows: ``out[tile, step, row, :]``, 64 features a step.

    Tokens past the last are left as they are: a row of a product is of no other row's concern.
    """
    full, rest = divmod(words, AMX_STEP_WORDS)
    rows = T.min(T.int32(AMX_ROWS), tokens - tile * AMX_ROWS)

    def write(step: Expr, count: int) -> None:
        with T.serial(0, rows) as row:
            token = tile * AMX_ROWS + row
            at = [(batch, step * AMX_STEP_WORDS + i, token) for i in range(count)]
            store(out, _token_bytes(plane, at), tile, step, row, 0, lanes=AMX_ROW_BYTES)

    if full:
        with T.serial(0, full) as step:
            write(step, AMX_STEP_WORDS)
    if rest:
        write(full, rest)


def _token_bytes(plane: Plane, at: list[tuple[Expr, ...]]) -> Expr:
    """64 features of a token: words at ``at``, zeros behind them."""

    def lanes(buffer: Buffer) -> Expr:
        pieces = [T.cast(buffer[index], "uint64") for index in at]
        value = pieces[0]
        for i, piece in enumerate(pieces[1:], 1):
            value = value | (piece << T.uint64(i * WORD_BITS))
        return bind(lanes_of(value, AMX_ROW_BYTES))

    one, nothing = splat(1, AMX_ROW_BYTES, "int8"), splat(0, AMX_ROW_BYTES, "int8")
    if plane.nonzero is None:
        return T.Select(lanes(plane.bits), one, nothing)
    signs = T.Select(lanes(plane.bits), one, splat(-1, AMX_ROW_BYTES, "int8"))
    return T.Select(lanes(plane.nonzero), signs, nothing)


def spread_weights(
    plane: Plane, out: Buffer, tile: Expr, column: Expr, first: Expr, words: int, *, negated: bool
) -> None:
    """Write ``words`` words of 32 columns: ``out[step, half, row, :]``, 16 columns a half.

    A row is four features of every column. The columns start at ``column`` of a column tile, the
    words at ``first``, a multiple of a step's.
    """

    def write(step: Expr, count: int) -> None:
        for i in range(count):
            word = first + step * AMX_STEP_WORDS + i
            for half in range(2):
                at = (tile, word, T.ramp(column + half * COLUMNS, 1, COLUMNS))
                rows = _weight_rows(plane, at, NEGATED_SIGN if negated else SIGN)
                for row, value in enumerate(rows, i * ROWS_PER_WORD):
                    store(out, value, step, half, row, 0, lanes=AMX_ROW_BYTES)

    full, rest = divmod(words, AMX_STEP_WORDS)
    if full:
        with T.serial(0, full) as step:
            write(step, AMX_STEP_WORDS)
    if rest:
        write(full, rest)


def _weight_rows(plane: Plane, at: tuple[Expr, ...], matrix: tuple[int, int]) -> Iterator[Expr]:
    """Eight rows of 16 columns' words; ``matrix`` makes a byte of the bit below it."""
    bits = bind(T.reinterpret(BYTES, plane.bits[at]))
    nonzero = None if plane.nonzero is None else bind(T.reinterpret(BYTES, plane.nonzero[at]))
    for row in range(ROWS_PER_WORD):
        value = _affine(_aligned(bits, 4 * row), matrix)
        if nonzero is not None:
            value = value & _affine(_aligned(nonzero, 4 * row), ALL_ONES)
        yield value


def _aligned(words: Expr, first: int) -> Expr:
    """Byte i of each 32-bit word becomes the word's bits from ``first + i`` on."""
    lane = T.cast(T.ramp(0, 1, AMX_ROW_BYTES), BYTES)
    # A control byte counts bits of its quadword, which holds two words.
    control = (lane & splat(4, AMX_ROW_BYTES, "int8")) * splat(8, AMX_ROW_BYTES, "int8")
    control = (
        control + (lane & splat(3, AMX_ROW_BYTES, "int8")) + splat(first, AMX_ROW_BYTES, "int8")
    )
    return tirx.call_llvm_pure_intrin(BYTES, "llvm.x86.avx512.pmultishift.qb.512", control, words)


def _affine(value: Expr, matrix: tuple[int, int]) -> Expr:
    rows = T.reinterpret(BYTES, T.broadcast(T.uint64(matrix[0]), AMX_ROW_BYTES // 8))
    name = "llvm.x86.vgf2p8affineqb.512"
    return tirx.call_llvm_pure_intrin(BYTES, name, value, rows, T.uint8(matrix[1]))


def negated_sums(
    plane: Plane, out: Buffer, tile: Expr, column: Expr, words: int, features: int
) -> None:
    """Write minus the sum of each of 32 columns' weights: ``out`` is (32,) int32."""
    for first in (0, COLUMNS):
        total = local((COLUMNS,), "int32")
        place = T.ramp(0, 1, COLUMNS)
        start = 0 if plane.nonzero is not None else features
        T.buffer_store(total, splat(start, COLUMNS, "int32"), [place])
        with T.serial(0, words) as word:
            at = (tile, word, T.ramp(column + first, 1, COLUMNS))

            def ones(part: Part, at: tuple[Expr, ...] = at) -> Expr:
                return T.cast(popcount(plane.read(part, *at)), f"int32x{COLUMNS}")

            if plane.nonzero is None:  # ones are +1, the rest -1: features - 2 * ones
                value = total[place] - ones(Part.BITS) - ones(Part.BITS)
            else:
                value = total[place] + ones(Part.NEGATIVE) - ones(Part.POSITIVE)
            T.buffer_store(total, value, [place])
        store(out, total[place], first, lanes=COLUMNS)
