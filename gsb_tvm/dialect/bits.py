"""The bit convention: the one place that says how signs and masks become words.

A *plane* is a tensor whose elements are signs {-1, +1}, masks {0, 1} or masked signs {-1, 0, +1}.
Its logical shape is ``(batch, tokens, groups, width)``: the last two axes are what a product
contracts (or, for attention, one head per group). Packed it is **word-major**::

    uint32[batch, groups * words(width), padded_tokens(tokens)]

- bit ``j`` of word ``g * words(width) + i`` holds element ``32 * i + j`` of group ``g``;
- a set bit is +1 in a sign plane, 1 in a mask plane, "not zero" in a nonzero plane;
- bits beyond ``width`` are 0 in every plane (so ``a ^ b`` and ``a & b`` ignore them);
- tokens are padded in memory only, to a multiple of 16; the padding's content is unspecified.

Neighbouring tokens of one word are neighbours in memory: six of them are six broadcasts from one
cache line, and sixteen keys of one word are one vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WORD_BITS = 32
TOKEN_ALIGN = 16

Words = npt.NDArray[np.uint32]
Floats = npt.NDArray[np.float32]


def words(width: int) -> int:
    """Number of 32-bit words that hold ``width`` bits."""
    return -(-width // WORD_BITS)


def padded_tokens(tokens: int) -> int:
    """Tokens a packed row of words is padded to."""
    return -(-tokens // TOKEN_ALIGN) * TOKEN_ALIGN


@dataclass(frozen=True)
class Rows:
    """Logical shape of a packed plane: ``(batch, tokens, groups, width)``."""

    batch: int
    tokens: int
    groups: int
    width: int

    @property
    def features(self) -> int:
        """Elements per token, padding not counted."""
        return self.groups * self.width

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """Shape of the uint32 tensor."""
        return (self.batch, self.groups * words(self.width), padded_tokens(self.tokens))


def pack_rows(plane: npt.ArrayLike, rows: Rows) -> Words:
    """Pack a boolean array ``(batch, tokens, features)`` into the word-major form."""
    bits = np.asarray(plane, dtype=bool).reshape(rows.batch, rows.tokens, rows.groups, rows.width)
    padded = np.zeros((*bits.shape[:3], words(rows.width) * WORD_BITS), dtype=bool)
    padded[..., : rows.width] = bits
    packed = np.packbits(padded, axis=-1, bitorder="little").view("<u4")
    out = np.zeros(rows.packed_shape, dtype=np.uint32)
    out[:, :, : rows.tokens] = packed.reshape(rows.batch, rows.tokens, -1).transpose(0, 2, 1)
    return out


def unpack_rows(packed: Words, rows: Rows) -> npt.NDArray[np.bool_]:
    """Inverse of :func:`pack_rows`: a boolean array ``(batch, tokens, features)``."""
    by_token = np.ascontiguousarray(packed[:, :, : rows.tokens].transpose(0, 2, 1))
    bits = np.unpackbits(by_token.astype("<u4").view(np.uint8), axis=-1, bitorder="little")
    bits = bits.reshape(rows.batch, rows.tokens, rows.groups, words(rows.width) * WORD_BITS)
    return bits[..., : rows.width].reshape(rows.batch, rows.tokens, rows.features).astype(bool)


def pack_weight(plane: npt.ArrayLike, *, groups: int, column_tile: int) -> Words:
    """Pack a boolean weight ``(columns, features)`` for the dense kernels.

    Parameters
    ----------
    plane
        Boolean, one row per output column; ``features`` splits into ``groups`` as the activation
        does.
    column_tile
        Columns one register tile covers; columns are padded with zeros to a multiple of it.

    Returns
    -------
    numpy.ndarray
        ``uint32[tiles, groups * words(width), column_tile]``: a tile's words are read in order.
    """
    bits = np.asarray(plane, dtype=bool)
    columns, features = bits.shape
    rows = Rows(1, columns, groups, features // groups)
    by_word = pack_rows(bits[None], rows)[0, :, :columns]
    tiles = -(-columns // column_tile)
    out = np.zeros((by_word.shape[0], tiles * column_tile), dtype=np.uint32)
    out[:, :columns] = by_word
    return np.ascontiguousarray(out.reshape(-1, tiles, column_tile).transpose(1, 0, 2))


def unpack_weight(packed: Words, *, groups: int, width: int, columns: int) -> npt.NDArray[np.bool_]:
    """Inverse of :func:`pack_weight`: a boolean array ``(columns, groups * width)``."""
    tiles, count, tile = packed.shape
    by_word = packed.transpose(1, 0, 2).reshape(1, count, tiles * tile)
    return unpack_rows(by_word, Rows(1, columns, groups, width))[0]


def retile_weight(packed: Words, *, columns: int, column_tile: int) -> Words:
    """What :func:`pack_weight` makes, in tiles of ``column_tile`` columns instead.

    Columns from ``columns`` on are padding and become zeros.
    """
    tiles, count, tile = packed.shape
    by_word = packed.transpose(1, 0, 2).reshape(count, tiles * tile)[:, :columns]
    padding = -columns % column_tile
    padded = np.pad(by_word, ((0, 0), (0, padding))).reshape(count, -1, column_tile)
    return np.ascontiguousarray(padded.transpose(1, 0, 2))


def pad_columns(values: npt.NDArray[Any], rows: Rows, fill: float = 0) -> npt.NDArray[Any]:
    """Spread per-feature ``values`` (features,) over whole words: ``(groups * words * 32,)``.

    A dense layer that writes bits computes the padding columns too; their thresholds must give 0.
    """
    out = np.full((rows.groups, words(rows.width) * WORD_BITS), fill, dtype=values.dtype)
    out[:, : rows.width] = values.reshape(rows.groups, rows.width)
    return out.reshape(-1)


def pad_weight_columns(plane: npt.NDArray[np.bool_], rows: Rows) -> npt.NDArray[np.bool_]:
    """Spread the rows of a boolean weight ``(features, k)`` like :func:`pad_columns`."""
    out = np.zeros((rows.groups, words(rows.width) * WORD_BITS, plane.shape[1]), dtype=bool)
    out[:, : rows.width] = plane.reshape(rows.groups, rows.width, -1)
    return out.reshape(-1, plane.shape[1])


def signed(
    bits: npt.NDArray[np.bool_], nonzero: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.int64]:
    """int64 signs of unpacked planes: +1 where set, -1 elsewhere, 0 where not nonzero."""
    out = np.where(bits, 1, -1).astype(np.int64)
    return out if nonzero is None else out * nonzero


def product(shape: Sequence[int]) -> int:
    """Elements of a shape."""
    return int(np.prod(shape, dtype=np.int64))
