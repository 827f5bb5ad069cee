"""The product of two planes as counts of differing bits: one inner loop for every kind of plane.

Let ``popc(x)`` be the number of set bits and ``c(a, w) = popc(a ^ w)``. A sign plane contributes
its bits; a masked sign splits into the masks of its positive and negative elements, ``p - m``. For
masks {0, 1} and signs ±1 with padding bits 0 in both, from popc(a ^ w) = popc(a) + popc(w) -
2 popc(a & w):

====================  ==================================================
sign  . sign          K - 2 c(a, w)
mask  . sign          popc(w) - c(a, w)
sign  . masked        c(a, m) - c(a, p)
masked . sign         c(m, w) - c(p, w)
mask  . masked        (popc(p) - popc(m) - c(a, p) + c(a, m)) / 2
masked . masked       (c(p, m) + c(m, p) - c(p, p) - c(m, m)) / 2
====================  ==================================================

No row of activations is ever counted: what remains beside the counts is a constant or belongs to a
column. Halves are exact. A masked plane without zeros is a sign plane.
"""

from dataclasses import dataclass
from enum import StrEnum

from gsb_tvm.dialect.specs import Kind


class Part(StrEnum):
    """The bits of a plane that enter a count."""

    BITS = "bits"
    POSITIVE = "positive"  # bits & nonzero
    NEGATIVE = "negative"  # ~bits & nonzero


class Base(StrEnum):
    """What stands beside the counts."""

    NOTHING = "nothing"
    FEATURES = "features"  # K
    COLUMN = "column"  # popc(w), or popc(p) - popc(m)


@dataclass(frozen=True)
class Term:
    """``sign * c(activation, weight)``."""

    sign: int
    activation: Part
    weight: Part


@dataclass(frozen=True)
class Product:
    """``dot = (base - factor * sum(terms)) / (2 if halved else 1)``; the first term is positive."""

    terms: tuple[Term, ...]
    base: Base
    factor: int = 1
    halved: bool = False

    @property
    def is_one_count(self) -> bool:
        """Whether c(a, w) of the bits as they are is its only term."""
        return self.terms == (Term(1, Part.BITS, Part.BITS),)

    def base_of_equals(self, features: int, padded: int) -> int:
        """What ``factor`` times the count of equal bits is added to, of a product of one count.

        Of P bits with padding, P - c(a, w) are equal: K - 2 c = K - 2 P + 2 (P - c), and
        popc(w) - c = popc(w) - P + (P - c). The column's popc(w) is left to the caller.
        """
        assert self.is_one_count
        return features - 2 * padded if self.base is Base.FEATURES else -padded


def product(activation: Kind, weight: Kind) -> Product:
    """Product of two kinds of plane; a masked activation is taken to have zeros."""
    bits, positive, negative = Part.BITS, Part.POSITIVE, Part.NEGATIVE
    if weight is not Kind.MASKED:
        if activation is Kind.SIGN:
            return Product((Term(1, bits, bits),), Base.FEATURES, factor=2)
        if activation is Kind.MASK:
            return Product((Term(1, bits, bits),), Base.COLUMN)
        terms = (Term(1, positive, bits), Term(-1, negative, bits))
        return Product(terms, Base.NOTHING)
    if activation is not Kind.MASKED:
        terms = (Term(1, bits, positive), Term(-1, bits, negative))
        if activation is Kind.SIGN:
            return Product(terms, Base.NOTHING)
        return Product(terms, Base.COLUMN, halved=True)
    return Product(
        (
            Term(1, positive, positive),
            Term(1, negative, negative),
            Term(-1, positive, negative),
            Term(-1, negative, positive),
        ),
        Base.NOTHING,
        halved=True,
    )
