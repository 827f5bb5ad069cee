"""Tile numbers of the patch embedding: pure functions of shapes and machine."""

from dataclasses import dataclass

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.float.tiles import fitting_lanes, product_tile
from gsb_tvm.targets import Profile

# Products summed in a row before they join the total: rounding grows with their number. The total
# costs an addition for each chunk, which was not seen in the time of 16 x 16 patches.
CHUNK = 16


@dataclass(frozen=True)
class Tiles:
    """A register tile: ``patches`` neighbours of a row of patches, ``vectors`` of columns."""

    patches: int
    vectors: int
    lanes: int


def tiles(spec: Patches, profile: Profile) -> Tiles:
    """The tile of :func:`gsb_tvm.schedules.float.tiles.product_tile` over a row of patches.

    Patches of a tile lie in one row, so that one address and constant distances reach all.
    """
    lanes = fitting_lanes(spec.columns, profile.lanes)
    registers = 32 if profile.has_avx512 or profile.has_neon else 16
    patches, vectors = product_tile(spec.grid[1], -(-spec.columns // lanes), registers)
    return Tiles(patches, vectors, lanes)


def chunk_rows(spec: Patches) -> int:
    """Rows of a patch that are summed in a row: the fewest with ``CHUNK`` products or more.

    A divisor of the patch's height.
    """
    height, width = spec.patch
    return next(
        n
        for n in range(1, height + 1)
        if height % n == 0 and n * width >= min(CHUNK, height * width)
    )
