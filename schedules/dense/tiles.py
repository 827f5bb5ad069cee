"""Register tiles of the dense kernels: pure functions of the machine."""

from dataclasses import dataclass
from enum import Enum

from gsb_tvm.targets import Profile


class Method(Enum):
    """How differing bits are counted."""

    WORDS = "population count of 32-bit lanes"
    BYTES = "population count of bytes"
    CARRY_SAVE = "population count of bytes after carry-save addition"
    LOOKUP = "table of nibbles"


@dataclass(frozen=True)
class Tiles:
    """Tile sizes.

    Attributes
    ----------
    method
        Inner loop.
    rows
        Tokens of a register tile.
    vectors
        Vectors of columns of a register tile.
    lanes
        32-bit columns per vector.
    column_tile
        Columns whose weights are kept in L1 while all tokens pass: a multiple of
        ``vectors * lanes`` and of 32.
    """

    method: Method
    rows: int
    vectors: int
    lanes: int
    column_tile: int


def tiles(profile: Profile) -> Tiles:
    """Tile sizes for ``profile``.

    WORDS: with 32 registers, ``rows * vectors`` counters, ``vectors`` weights, an activation and a
    temporary must fit: 6 * 4 + 4 + 2 <= 32. LOOKUP: ``rows * vectors`` counters, ``2 * vectors``
    weights, two table rows and a temporary in 16 registers: 3 * 2 + 4 + 2 + 1 <= 16; the turned
    weights, 8 bytes per word and column, stay in 32 kB of L1 up to 64 words: 8 * 64 * 64 <= 32768.
    BYTES, Neon: like WORDS with two temporaries, 3 * 4 + 4 + 3 <= 32. CARRY_SAVE keeps at most 2
    vectors of each weight 1, 2, 4, 8 per cell: 2 cells * 8 <= 16.
    """
    if profile.has_vpopcntdq:
        return Tiles(Method.WORDS, 6, 4, 16, 64)
    if profile.has_avx512:
        return Tiles(Method.CARRY_SAVE, 1, 2, 16, 64)
    if profile.has_avx2:
        return Tiles(Method.LOOKUP, 3, 2, 32, 64)
    if profile.has_neon:
        return Tiles(Method.BYTES, 3, 4, 4, 32)
    return Tiles(Method.CARRY_SAVE, 1, 2, 4, 32)


def column_tile(profile: Profile) -> int:
    """Columns that the packed weight is tiled by, a multiple of 32."""
    return tiles(profile).column_tile
