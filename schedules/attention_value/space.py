"""What may be chosen of attention times values."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS, padded_tokens, words
from gsb_tvm.dialect.specs import AttentionValue, Kind
from gsb_tvm.schedules.spaces import cuts
from gsb_tvm.targets.profile import Profile

ROWS = (1, 2, 4, 8, 16)  # divide 16, so that whole tiles end within the padded tokens
WORDS = (1, 2, 3, 4)
MULTIPLES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
STRAIGHT = 16  # vectors of tokens: above, a loop
MET_WORDS = (1, 2, 4)
MOST_TOKENS = 253  # halves of products, and of thresholds one beyond, are signed bytes


class By(StrEnum):
    """What decides comparisons of a head with nearly empty masks, where both ways serve."""

    INTEGERS = "integers"
    """Integers, and floats where something is added to them (:mod:`decided`)."""
    FLOATS = "floats"
    """The steps of the graph, as for other heads."""


@dataclass(frozen=True)
class Parameters:
    """Register tile of the products, and when and how masks are taken as lists of set bits.

    Attributes
    ----------
    rows
        Query rows of a tile: a divisor of 16.
    words
        Words of 32 channels of a tile, at most those there are.
    values
        Set bits of value masks above which their products are dense, as a multiple of
        :func:`gsb_tvm.schedules.attention_value.limits.limits`; None without such masks.
    attention
        The same of the attention masks but the base.
    straight
        Vectors of 16 tokens that a set bit of a value mask takes in straight code: all where there
        are no more, else a step of a loop. None without such masks.
    by
        None where integers do not serve.
    met_words
        Words whose bits are counted in a step where integers decide.
    """

    rows: int
    words: int
    values: float | None = None
    attention: float | None = None
    straight: int | None = None
    by: By | None = None
    met_words: int | None = None


def by_integers(spec: AttentionValue, profile: Profile) -> bool:
    """Whether integers may decide: on Neon, for whole words of bits, of not too many tokens."""
    if spec.compare is None or not profile.has_neon:
        return False
    at_zero = spec.compare.kind is not Kind.MASKED or spec.compare.bound == 0
    return at_zero and spec.v.width % WORD_BITS == 0 and spec.v.tokens <= MOST_TOKENS


def rule(spec: AttentionValue, profile: Profile) -> Parameters:
    """Largest tile with ``rows * words * 1024 / vector_bits <= registers / 2``; estimated limits.

    The other registers hold a row of operands, the constants of a byte count and its temporaries.
    """
    count = min(2, words(spec.v.width)) if profile.vector_bits == 512 else 1
    rows = {512: 8 // count, 256: 2, 128: 2 if profile.has_neon else 1}[profile.vector_bits]
    vectors, integers = padded_tokens(spec.v.tokens) // TOKEN_ALIGN, by_integers(spec, profile)
    return Parameters(
        rows,
        count,
        1.0 if spec.v_groups > 1 else None,
        1.0 if spec.p_groups > 1 else None,
        (vectors if vectors <= STRAIGHT else 1) if spec.v_groups > 1 else None,
        By.INTEGERS if integers else None,
        2 if integers else None,
    )


def space(spec: AttentionValue, profile: Profile) -> Iterator[Parameters]:
    """Multiples of the limits, and where both are the same tiles and straight code of any size.

    What limits do depends on data: with 0 planes are multiplied wherever a bit is set.
    """
    chosen = rule(spec, profile)
    for values, attention in product(*map(_multiples, (chosen.values, chosen.attention))):
        limited = replace(chosen, values=values, attention=attention)
        yield limited
        if limited.by is By.INTEGERS:
            yield replace(limited, by=By.FLOATS, met_words=None)
        if values is None or attention in (values, None):
            yield from _loops(spec, profile, limited)


def _multiples(by_rule: float | None) -> Sequence[float | None]:
    return [None] if by_rule is None else MULTIPLES


def _loops(spec: AttentionValue, profile: Profile, limited: Parameters) -> Iterator[Parameters]:
    """The same with other tiles, whose sums fit the registers, and other loops."""
    registers = 32 if profile.has_avx512 or profile.has_neon else 16
    pieces = WORD_BITS * WORD_BITS // profile.vector_bits  # registers of 32 channels
    vectors = padded_tokens(spec.v.tokens) // TOKEN_ALIGN
    steps: list[int | None] = [None]
    if limited.straight is not None:
        steps = [1, min(4, vectors), min(STRAIGHT, vectors)]
    for rows, count, straight in product(ROWS, cuts(words(spec.v.width), WORDS), steps):
        if rows * count * pieces <= registers:
            yield replace(limited, rows=rows, words=count, straight=straight)
    if limited.by is By.INTEGERS:
        yield from (replace(limited, met_words=met_words) for met_words in MET_WORDS)
