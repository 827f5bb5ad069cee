"""Register tiles of the dense kernels: pure functions of the machine."""

from dataclasses import dataclass

from gsb_tvm.targets import Profile


@dataclass(frozen=True)
class Tiles:
    """Tile sizes.

    Attributes
    ----------
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

    rows: int
    vectors: int
    lanes: int
    column_tile: int


def tiles(profile: Profile) -> Tiles:
    """Tile sizes for ``profile``.

    With 32 registers, ``rows * vectors`` counters, ``vectors`` weights, an activation and a
    temporary must fit: 6 * 4 + 4 + 2 <= 32.
    """
    if profile.has_vpopcntdq:
        return Tiles(6, 4, 16, 64)
    if profile.has_avx512:
        return Tiles(4, 4, 16, 64)
    if profile.has_avx2:
        return Tiles(2, 2, 8, 32)
    if profile.has_neon:
        return Tiles(3, 4, 4, 32)
    return Tiles(2, 2, 4, 32)


def column_tile(profile: Profile) -> int:
    """Columns that the packed weight is tiled by, a multiple of 32."""
    return tiles(profile).column_tile
