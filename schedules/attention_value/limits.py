"""When lists of set bits beat a product of planes."""

from dataclasses import dataclass

from gsb_tvm.dialect.bits import WORD_BITS, padded_tokens, words
from gsb_tvm.dialect.specs import AttentionValue
from gsb_tvm.targets.profile import Profile


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


def limits(
    spec: AttentionValue, profile: Profile, values: float = 1.0, attention: float = 1.0
) -> Limits:
    """Limits where the estimated cycles of both ways are equal, or multiples of them.

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
        values=int(values * (value_products * product / value_bit)),
        attention=int(attention * (attention_products * product / attention_bit)),
    )


def _step(profile: Profile) -> float:
    """Cycles to count the common bits of one vector."""
    if profile.has_vpopcntdq:
        return 1.0
    if profile.has_avx2:
        return 2.5
    return 3.0 if profile.has_neon else 4.0
