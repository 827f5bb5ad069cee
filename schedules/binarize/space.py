"""What may be chosen of a binarize kernel."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Binarize, Kind
from gsb_tvm.schedules.top_bits import QUAD
from gsb_tvm.targets.profile import Profile

ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
SUM_WORDS = (1, 2, 3, 4, 6)
WORDS = (1, 2, 4)
CHAINS = (1, 2, 4)
MOST_CODE = 16  # words in straight code: a second of compilation
MOST_SUMS = 16  # vectors: all registers of the smallest file


class By(StrEnum):
    """What decides comparisons, where both ways serve."""

    ESTIMATES = "estimates"
    """Estimates, and in doubt the steps (:mod:`estimated`)."""
    STEPS = "steps"
    """The steps of the graph (:mod:`wide`)."""


class Quotient(StrEnum):
    """How a normed value is divided, with the same result."""

    FUSED = "fused"
    """By the reciprocal and two fused multiply-adds, where deviations permit it."""
    DIVIDED = "divided"
    """By division."""


@dataclass(frozen=True)
class Parameters:
    """Of rows of 32 features or more; shorter ones leave no choice, and all of it is None.

    Attributes
    ----------
    rows
        Rows taken through the stages together, at most those there are.
    words
        Words of each row that are compared in straight code.
    sum_words
        Words of 32 partial sums a row is summed in: at most those of a row.
    quotient
        None without a norm or fused multiply-adds.
    by
        None where only steps serve. Estimates take four rows, and leave out all of the above.
    chains
        Vectors that a row's sums of four are collected in before estimates.
    """

    rows: int | None = None
    words: int | None = None
    sum_words: int | None = None
    quotient: Quotient | None = None
    by: By | None = None
    chains: int | None = None


def by_estimates(spec: Binarize, profile: Profile) -> bool:
    """Whether estimates serve: on Neon, norms of whole words, at zero where zeros count."""
    rows, compare = spec.rows, spec.compare
    at_zero = compare.kind is not Kind.MASKED or (compare.strict and compare.bound == 0)
    whole = rows.width % WORD_BITS == 0
    return profile.has_neon and spec.norm and whole and at_zero and rows.tokens >= QUAD


def rule(spec: Binarize, profile: Profile) -> Parameters:
    """Six rows, sums of two words, or of one where vectors are short; estimates where they serve.

    Reductions, root and reciprocal of a row are pure latency; six rows side by side hide it. More
    rows gain nothing, since a word of gamma, beta and shift is already shared by six. Four to eight
    vectors of sums (``4 <= 32 * sum_words / lanes <= 8``) hide the latency of an add and leave half
    of the smallest register file free. Before estimates, four chains of four rows are 16 registers.
    """
    if spec.rows.features < WORD_BITS:
        return Parameters()
    if by_estimates(spec, profile):
        return Parameters(by=By.ESTIMATES, chains=4)
    return Parameters(
        min(6, spec.rows.tokens),
        1,
        _sum_words(spec, profile),
        Quotient.FUSED if spec.norm and profile.has_fma else None,
    )


def _sum_words(spec: Binarize, profile: Profile) -> int:
    return min(2 if profile.lanes >= 8 else 1, spec.rows.features // WORD_BITS)


def space(spec: Binarize, profile: Profile) -> Iterator[Parameters]:
    """Blocks and sums of any size that compile soon, either division, estimates where they serve.

    Without a norm sums are none, and stay the rule's.
    """
    if spec.rows.features < WORD_BITS:
        return
    estimates = by_estimates(spec, profile)
    if estimates:
        yield from (Parameters(by=By.ESTIMATES, chains=chains) for chains in CHAINS)
    most = min(spec.rows.features // WORD_BITS, MOST_SUMS * profile.lanes // WORD_BITS)
    sums = [count for count in SUM_WORDS if count <= most]
    if not spec.norm:
        sums = [_sum_words(spec, profile)]
    quotients = [*Quotient] if spec.norm and profile.has_fma else [None]
    by = By.STEPS if estimates else None
    for rows, words, sum_words, quotient in product(ROWS, WORDS, sums, quotients):
        fits = rows <= spec.rows.tokens and words <= max(1, spec.rows.width // WORD_BITS)
        if fits and rows * words <= MOST_CODE:
            yield Parameters(rows, words, sum_words, quotient, by)
