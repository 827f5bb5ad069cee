"""Products of planes as counts of common bits, which is what tensor cores multiply.

Every plane's value is ``factor * (P - N) + offset`` of bits P and, of a masked sign, N: a sign is
``2 P - 1``, a mask ``P``, a masked sign ``P - N`` with N its nonzero bits that are not positive.
Multiplied out, with ``|X|`` the set bits of X along the features::

    a . b = fa fb (|Pa Pb| + |Na Nb| - |Pa Nb| - |Na Pb|)
            + fa ob (|Pa| - |Na|) + oa fb (|Pb| - |Nb|) + oa ob K
"""

from dataclasses import dataclass

from gsb_tvm.dialect.specs import Kind


@dataclass(frozen=True)
class Form:
    """Value of an element by its bits: ``factor * (P - N) + offset``; N only where ``signed``."""

    factor: int
    offset: int
    signed: bool


FORMS = {
    Kind.SIGN: Form(2, -1, False),
    Kind.MASK: Form(1, 0, False),
    Kind.MASKED: Form(1, 0, True),
}


@dataclass(frozen=True)
class Terms:
    """How a product of two planes is made of counts.

    Attributes
    ----------
    a, b
        Forms of the planes.
    features
        K, elements of a row.
    """

    a: Form
    b: Form
    features: int

    @property
    def factor(self) -> int:
        """Of the counts of common bits."""
        return self.a.factor * self.b.factor

    @property
    def of_rows(self) -> int:
        """Factor of the set bits of a row of a."""
        return self.a.factor * self.b.offset

    @property
    def of_columns(self) -> int:
        """Factor of the set bits of a row of b."""
        return self.a.offset * self.b.factor

    @property
    def constant(self) -> int:
        """What is left."""
        return self.a.offset * self.b.offset * self.features

    @property
    def negative(self) -> list[tuple[bool, bool]]:
        """Pairs whose common bits are subtracted: whether N is taken of a, and of b."""
        pairs = [(False, True)] if self.b.signed else []
        return [*pairs, (True, False)] if self.a.signed else pairs

    @property
    def positive(self) -> list[tuple[bool, bool]]:
        """Pairs whose common bits are added."""
        return [(False, False), *([(True, True)] if self.a.signed and self.b.signed else [])]


def terms(a: Kind, b: Kind, features: int) -> Terms:
    """Terms of a product of planes of these kinds."""
    return Terms(FORMS[a], FORMS[b], features)
