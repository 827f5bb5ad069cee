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
    patches, vectors = product_tile(spec.grid[1], -(-spec.columns // lanes), registers(profile))
    return Tiles(patches, vectors, lanes)


def registers(profile: Profile) -> int:
    """Vector registers."""
    return 32 if profile.has_avx512 or profile.has_neon else 16


def chunk_rows(spec: Patches) -> list[int]:
    """Rows of a patch that may be summed in a row: the fewest with ``CHUNK`` products, then more.

    Divisors of the patch's height.
    """
    height, width = spec.patch
    least = min(CHUNK, height * width)
    return [n for n in range(1, height + 1) if height % n == 0 and n * width >= least]


REGISTERS = 32  # of every CPU whose multiply-adds take a factor from a lane
SPARE = 3  # of them, for loads that LLVM moves up: 14 x 2 sums leave none and cost 12 % in spills


def element_tiles(spec: Patches) -> list[Tiles]:
    """Tiles where a product's factor is a lane of four pixels, the fewest instructions first.

    Sums, a vector of each column and two of pixels must fit. A step of k takes a multiply-add for
    each sum and a load for each two vectors. Patches may lie in different rows; those that fill no
    tile are a smaller one.
    """
    lanes = fitting_lanes(spec.columns, 4)
    count, vectors = spec.grid[0] * spec.grid[1], -(-spec.columns // lanes)

    def runs(size: int, step: int) -> list[tuple[int, int]]:
        whole, rest = divmod(size, step)
        return [(times, length) for times, length in ((whole, step), (1, rest)) if length]

    def cost(tile: Tiles) -> tuple[int, int]:
        cost = sum(
            tiles * blocks * (p * v + -(-p // 8) + -(-v // 2))
            for tiles, p in runs(count, tile.patches)
            for blocks, v in runs(vectors, tile.vectors)
        )
        return cost, -tile.vectors  # more vectors: pixels are read less often

    fitting = [
        Tiles(p, v, lanes)
        for v in range(1, min(vectors, 8) + 1)
        for p in range(1, min(count, REGISTERS) + 1)
        if p * v + v + min(2, -(-p // 4)) <= REGISTERS - SPARE
    ]
    return sorted(fitting, key=cost)


def padded_patches(patches: int) -> int:
    """Patches of a tile as whole vectors of four."""
    return -(-patches // 4) * 4


def tiles_at_once(spec: Patches, tile: Tiles, profile: Profile) -> int:
    """Tiles whose pixels take three quarters of the second cache at most, but one at least."""
    each = spec.depth * padded_patches(tile.patches) * 4
    return max(1, profile.l2_bytes * 3 // 4 // each)
