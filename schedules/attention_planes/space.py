"""What may be chosen of attention planes."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules.attention_planes import byte_table, table, tiles
from gsb_tvm.targets import Profile

ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
STRAIGHT = 8  # words of a row, above which code grows and gains nothing
AHEAD = 12
AHEADS = (0, 6, AHEAD, 24)


class Numerators(StrEnum):
    """Where the softmax's exponentials come from, where both ways serve; bits are the same."""

    TABLE = "table"
    """A table in registers (:mod:`table`, :mod:`byte_table`)."""
    EXPONENTIALS = "exponentials"
    """Each is computed."""


class By(StrEnum):
    """What decides the base mask, on Neon."""

    ESTIMATES = "estimates"
    """Estimates, and in doubt the steps (:mod:`estimate`)."""
    STEPS = "steps"
    """The steps of the graph, as on other machines."""


@dataclass(frozen=True)
class Parameters:
    """Blocks of query rows, and the way along a row of keys.

    Attributes
    ----------
    rows
        Query rows that go through the stages together, at most those there are.
    straight
        Words of 32 keys in straight code: the whole row where it has no more, else a step.
    ahead
        Rows of the bias that are fetched into the cache ahead of their use; with 0 none is.
    numerators
        None where a table does not serve.
    by
        None where estimates do not serve.
    """

    rows: int
    straight: int
    ahead: int
    numerators: Numerators | None = None
    by: By | None = None


def by_table(spec: AttentionPlanes, profile: Profile) -> bool:
    """Whether exponentials may come from a table."""
    return (byte_table if profile.has_neon else table).applies(spec, profile)


def rule(spec: AttentionPlanes, profile: Profile) -> Parameters:
    """Short rows in straight code, long ones in a loop; tables and estimates where they serve.

    The bias is met once per image and is the largest constant of a model: it comes from memory.
    Rows fetched ahead cover that latency, about 100 ns, with one row computed in some 30 ns; 12
    rows of 198 keys are 10 kB.
    """
    whole = spec.q.tokens // WORD_BITS
    return Parameters(
        tiles.query_rows(spec.q.tokens),
        max(1, whole) if whole <= STRAIGHT else 1,
        AHEAD,
        Numerators.TABLE if by_table(spec, profile) else None,
        By.ESTIMATES if profile.has_neon else None,
    )


def space(spec: AttentionPlanes, profile: Profile) -> Iterator[Parameters]:
    """Blocks whose floats fit half of the second cache, loops and straight code, every way.

    Steps instead of estimates are tried with the rule's fetching only.
    """
    tokens, whole = spec.q.tokens, max(1, spec.q.tokens // WORD_BITS)
    each = words(tokens) * WORD_BITS * 4
    rows = [n for n in ROWS if n <= tokens and (n == 1 or n * each <= profile.l2_bytes // 2)]
    straight = sorted({1, min(2, whole), whole if whole <= 2 * STRAIGHT else min(4, whole)})
    aheads = AHEADS if spec.bias else (AHEAD,)
    numerators = [*Numerators] if by_table(spec, profile) else [None]
    ways = [*By] if profile.has_neon else [None]
    for n, code, ahead, way, by in product(rows, straight, aheads, numerators, ways):
        if ahead == AHEAD or by is not By.STEPS:
            yield Parameters(n, code, ahead, way, by)
