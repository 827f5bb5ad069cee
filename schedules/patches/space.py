"""What may be chosen of a patch embedding."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.float.tiles import fitting_lanes
from gsb_tvm.schedules.patches.tiles import (
    chunk_rows,
    element_tiles,
    registers,
    tiles,
    tiles_at_once,
)
from gsb_tvm.schedules.spaces import cuts, lanes_of
from gsb_tvm.targets import Profile

STEP = 8  # 16 save 0.7 % on an Arm core, and compile 2 s
STEPS = (4, STEP, 16)
ELEMENT_CHUNK = 96  # a sum joins the total for 81 instructions: 48 take 0.5 million more of 18
ELEMENT_CHUNKS = (48, ELEMENT_CHUNK)
LONGEST_CHUNK = 96  # products, whose roundings add up
ELEMENT_TILES = 12  # the best by their number of instructions
MOST_VECTORS = 8


class By(StrEnum):
    """What a multiply-add's factors are, where both ways serve."""

    BROADCASTS = "broadcasts"
    """Whole vectors (:mod:`broadcasts`)."""
    ELEMENTS = "elements"
    """A vector and a lane of another one (:mod:`elements`)."""


@dataclass(frozen=True)
class Parameters:
    """Register tile, and how sums are cut.

    Attributes
    ----------
    patches
        Neighbours that a tile covers: of a row of patches, or for elements of all patches.
    vectors
        Of columns, that it covers.
    lanes
        Columns of a vector, at most those there are.
    chunk
        Products summed before they join the total. By broadcasts they are whole rows of a patch.
    step
        For elements: products whose multiply-adds stand in a row, without a branch.
    at_once
        For elements: tiles whose pixels are written out before they are multiplied.
    by
        None where only broadcasts serve.
    """

    patches: int
    vectors: int
    lanes: int
    chunk: int
    step: int | None = None
    at_once: int | None = None
    by: By | None = None


def rule(spec: Patches, profile: Profile) -> Parameters:
    """Elements on Arm, broadcasts elsewhere, and the tile with the least estimated time."""
    if profile.has_neon:
        tile = element_tiles(spec)[0]
        at_once = tiles_at_once(spec, tile, profile)
        numbers = tile.patches, tile.vectors, tile.lanes
        return Parameters(*numbers, ELEMENT_CHUNK, STEP, at_once, By.ELEMENTS)
    tile = tiles(spec, profile)
    chunk = chunk_rows(spec)[0] * spec.patch[1]
    return Parameters(tile.patches, tile.vectors, tile.lanes, chunk)


def space(spec: Patches, profile: Profile) -> Iterator[Parameters]:
    """Tiles that fit the registers, and sums in chunks whose roundings stay few."""
    if profile.has_neon:
        yield from _by_elements(spec, profile)
    yield from _by_broadcasts(spec, profile)


def _by_elements(spec: Patches, profile: Profile) -> Iterator[Parameters]:
    for tile in element_tiles(spec)[:ELEMENT_TILES]:
        most = tiles_at_once(spec, tile, profile)
        for chunk, step, share in product(ELEMENT_CHUNKS, STEPS, (1, 4)):
            at_once = max(1, most // share)
            numbers = tile.patches, tile.vectors, tile.lanes
            yield Parameters(*numbers, chunk, step, at_once, By.ELEMENTS)


def _by_broadcasts(spec: Patches, profile: Profile) -> Iterator[Parameters]:
    """Sums, a vector of each column and one broadcast fit the registers."""
    most, width = registers(profile), spec.patch[1]
    fewest, *more = [rows * width for rows in chunk_rows(spec)]
    chunks = [fewest, *[chunk for chunk in more if chunk <= LONGEST_CHUNK]]
    by = By.BROADCASTS if profile.has_neon else None
    for lanes in {fitting_lanes(spec.columns, lanes): None for lanes in lanes_of(profile)}:
        vectors = cuts(-(-spec.columns // lanes), range(1, MOST_VECTORS + 1))
        patches = cuts(spec.grid[1], range(1, most))
        for p, v, chunk in product(patches, vectors, chunks):
            if p * v + v + 1 <= most:
                yield Parameters(p, v, lanes, chunk, by=by)
