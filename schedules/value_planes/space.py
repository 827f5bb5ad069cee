"""What may be chosen of a kernel of value planes."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import ValuePlanes
from gsb_tvm.schedules.spaces import lanes_of
from gsb_tvm.schedules.top_bits import QUAD
from gsb_tvm.schedules.value_planes.tiles import row_length
from gsb_tvm.targets import Profile

ACCUMULATORS = (1, 2, 3, 4, 6, 8)
ROWS = (1, 2, 3, 4, 6, 8)


class By(StrEnum):
    """How the second pass finds what is in no mask, where both ways serve."""

    TOP_BITS = "top_bits"
    """By the highest bits of scaled values, four tokens at a time (:mod:`top`)."""
    COMPARISONS = "comparisons"
    """By comparisons, as where bounds permit nothing else."""


@dataclass(frozen=True)
class Parameters:
    """Of the two passes.

    Attributes
    ----------
    accumulators
        Vectors of the first pass for each extreme: ``accumulators * lanes <= row_length``.
    lanes
        Floats of such a vector.
    rows
        Tokens, at most those there are, whose words of one place are compared one after another:
        they are neighbours in every plane. The last tokens start early.
    signs
        None where only comparisons serve.
    """

    accumulators: int
    lanes: int
    rows: int = 1
    signs: By | None = None


def by_top_bits(spec: ValuePlanes, profile: Profile) -> bool:
    """Whether the highest bits may serve: on Neon, for whole words of four tokens."""
    rows = spec.rows
    return profile.has_neon and rows.width % WORD_BITS == 0 and rows.tokens >= QUAD


def rule(spec: ValuePlanes, profile: Profile) -> Parameters:
    """Four pairs of accumulators, or as many as a row fills, and the highest bits where they serve.

    Four pairs cover the latency of a maximum on every machine and fit any register file.
    """
    return Parameters(
        min(4, row_length(spec.rows) // profile.lanes),
        profile.lanes,
        signs=By.TOP_BITS if by_top_bits(spec, profile) else None,
    )


def space(spec: ValuePlanes, profile: Profile) -> Iterator[Parameters]:
    """All accumulators that a row fills, and tokens side by side in the second pass."""
    length, tokens = row_length(spec.rows), spec.rows.tokens
    ways: list[tuple[int, By | None]] = [(rows, None) for rows in ROWS if rows <= tokens]
    if by_top_bits(spec, profile):
        ways = [(1, By.TOP_BITS), *[(rows, By.COMPARISONS) for rows, _ in ways]]
    for lanes, count in product(lanes_of(profile), ACCUMULATORS):
        if count * lanes <= length:
            yield from (Parameters(count, lanes, *way) for way in ways)
