"""Register tile of the products, and when lists of set bits beat a product of planes."""

from dataclasses import dataclass

from gsb_tvm.dialect.bits import WORD_BITS, padded_tokens, words
from gsb_tvm.dialect.specs import AttentionValue
from gsb_tvm.targets.profile import Profile


@dataclass(frozen=True)
class Tile:
    """Query rows and 32-channel words that one register tile covers."""

    rows: int
    words: int


def choose(profile: Profile, width: int) -> Tile:
    """Largest tile with ``rows * words * 1024 / vector_bits <= registers / 2``.

    Rows divide 16, so that whole tiles end within the padded tokens. The other registers hold a
    row of operands, the constants of a byte count and its temporaries.
    """
    if profile.vector_bits == 512:
        count = min(2, words(width))
        return Tile(8 // count, count)
    if profile.vector_bits == 256:
        return Tile(2, 1)
    return Tile(2 if profile.has_neon else 1, 1)


@dataclass(frozen=True)
class Limits:
    """Set bits per head above which planes are multiplied densely.

    Attributes
    ----------
    values
        Of all value masks together: their products with the base attention plane.
    attention
        Of all attention masks but the base: their products with every value plane.
    """

    values: int
    attention: int


def limits(spec: AttentionValue, profile: Profile) -> Limits:
    """Limits where the estimated cycles of both ways are equal.

    One product of planes takes ``tokens * words(tokens)`` rows of ``words(width)`` 32-lane words,
    ``step`` cycles per machine vector. A set bit of a value mask takes a masked add per vector of
    tokens, one of an attention mask an add per vector of channels; both pay for finding the bit.
    The numbers are fits to timings on an AMD Zen 5, compiled for each level (NEON: an estimate);
    attention bits cost somewhat less than they are charged where value masks are empty.
    """
    tokens, width = spec.v.tokens, spec.v.width
    vectors = WORD_BITS * words(width) / profile.lanes  # of channels
    product = tokens * words(tokens) * vectors * _step(profile)
    masked_add = 1 if profile.has_avx2 else 2
    value_bit = 6 + masked_add * padded_tokens(tokens) / profile.lanes
    attention_bit = 8 + 2 * vectors
    value_products = 2 * (spec.v_groups - 1)
    attention_products = (spec.p_groups - 1) * (2 * spec.v_groups - 1)
    return Limits(
        values=int(value_products * product / value_bit),
        attention=int(attention_products * product / attention_bit),
    )


def _step(profile: Profile) -> float:
    """Cycles to count the common bits of one vector."""
    if profile.has_vpopcntdq:
        return 1.0
    if profile.has_avx2:
        return 2.5
    return 3.0 if profile.has_neon else 4.0
