"""Transposition of 32 x 32 bits in vectors of four words (Neon).

Index bits of keys and channels are exchanged two, then three at a time: the two highest of a key
stand in the lane, those of a channel in the byte of a word, so a transposition of the bytes of each
vector does both; the three lowest stand in the number of the vector and in the bit of a byte, and
are exchanged one by one between pairs of vectors.
"""

from collections.abc import Sequence

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.transpose import transpose_block

QUAD = 4  # words of a vector
VECTORS = WORD_BITS // QUAD
LOWER = {4: 0x0F, 2: 0x33, 1: 0x55}  # of a byte, the bits whose number lacks this one


def transposed(rows: Sequence[v.Expr]) -> list[v.Expr]:
    """Bit i of word j becomes bit j of word i; eight vectors ``uint32x4`` in order, and so out."""
    # Vector j: the rows j, j + 8, j + 16, j + 24.
    vectors = [_bytes_turned(row) for row in _spread(rows)]
    for distance, lower in LOWER.items():
        for i in range(VECTORS):
            if not i & distance:
                pair = vectors[i], vectors[i + distance]
                vectors[i], vectors[i + distance] = _exchanged(*pair, distance, lower)
    words = [v.bind(T.reinterpret("uint32x4", vector)) for vector in vectors]
    low, high = transpose_block(words[:QUAD]), transpose_block(words[QUAD:])
    return [vector for pair in zip(low, high, strict=True) for vector in pair]


def _spread(rows: Sequence[v.Expr]) -> list[v.Expr]:
    return [*transpose_block(rows[0::2]), *transpose_block(rows[1::2])]


def _bytes_turned(vector: v.Expr) -> v.Expr:
    """A vector's bytes as a matrix of four by four, transposed."""
    order = [QUAD * (i % QUAD) + i // QUAD for i in range(QUAD * QUAD)]
    return v.bind(T.Shuffle([v.bind(T.reinterpret("uint8x16", vector))], order))


def _exchanged(a: v.Expr, b: v.Expr, distance: int, lower: int) -> tuple[v.Expr, v.Expr]:
    """Upper bits of ``a`` and lower ones of ``b`` in each other's place."""
    low, high = (v.splat(bits, 16, "uint8") for bits in (lower, 0xFF ^ lower))
    far = v.splat(distance, 16, "uint8")
    return (
        v.bind((a & low) | ((b << far) & high)),
        v.bind(((a >> far) & low) | (b & high)),
    )
