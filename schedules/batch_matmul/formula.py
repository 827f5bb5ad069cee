"""Exact dot products of two planes from counts of set bits.

With ``x`` the sign bits, ``z`` the nonzero bits, ``#`` the number of set bits and K the features::

    sign . sign       K - 2 #(a ^ b)
    mask . sign       2 #(a & b) - #a                  and with the roles exchanged
    mask . mask       #(a & b)
    masked . sign     #z_a - 2 #((a ^ b) & z_a)        and with the roles exchanged
    masked . mask     2 #(a & z_a & b) - #(z_a & b)    and with the roles exchanged
    masked . masked   #(z_a & z_b) - 2 #((a ^ b) & z_a & z_b)

Each is ``constant + row + column + slope * #first + #second``; padding bits are 0 in all planes
and drop out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules.vector import Expr

Words = tuple[Expr, Any]  # bits and nonzero (None where there is none) of one vector of words
Term = Callable[[Words, Words], Expr]


@dataclass(frozen=True)
class Form:
    """How counts become a dot product.

    Attributes
    ----------
    slope
        Factor of the count of ``first``.
    first, second
        Words whose set bits are counted; ``second``, where it stands, is added with factor
        ``second_slope``.
    features
        Whether K is added.
    a_count, b_count
        Factor of the set bits of the row of a (of b): of its nonzero plane where it is masked.
    """

    slope: int
    first: Term
    second: Term | None = None
    second_slope: int = 0
    features: bool = False
    a_count: int = 0
    b_count: int = 0

    @property
    def passes(self) -> int:
        """Counts that have to be made."""
        return 1 if self.second is None else 2


def kinds(spec: BatchMatmul, masked: bool) -> tuple[list[Kind], list[Kind]]:
    """Kinds that the planes of a and b are taken for: without zeros, unless ``masked``."""

    def side(kinds: Sequence[Kind]) -> list[Kind]:
        return [Kind.SIGN if kind is Kind.MASKED and not masked else kind for kind in kinds]

    return side(spec.a_kinds), side(spec.b_kinds)


def forms(spec: BatchMatmul, masked: bool) -> list[list[Form]]:
    """Forms of the products of every plane of a with every plane of b."""
    a_kinds, b_kinds = kinds(spec, masked)
    return [[_FORMS[a, b] for b in b_kinds] for a in a_kinds]


def passes(spec: BatchMatmul, masked: bool) -> int:
    """Counts that are made for all pairs of planes."""
    return sum(form.passes for row in forms(spec, masked) for form in row)


def _both(a: Words, b: Words) -> Expr:
    return a[0] & b[0]


_FORMS = {
    (Kind.SIGN, Kind.SIGN): Form(-2, lambda a, b: a[0] ^ b[0], features=True),
    (Kind.MASK, Kind.MASK): Form(1, _both),
    (Kind.MASK, Kind.SIGN): Form(2, _both, a_count=-1),
    (Kind.SIGN, Kind.MASK): Form(2, _both, b_count=-1),
    (Kind.MASKED, Kind.SIGN): Form(-2, lambda a, b: (a[0] ^ b[0]) & a[1], a_count=1),
    (Kind.SIGN, Kind.MASKED): Form(-2, lambda a, b: (a[0] ^ b[0]) & b[1], b_count=1),
    (Kind.MASKED, Kind.MASK): Form(
        2, lambda a, b: a[0] & a[1] & b[0], lambda a, b: a[1] & b[0], -1
    ),
    (Kind.MASK, Kind.MASKED): Form(
        2, lambda a, b: b[0] & b[1] & a[0], lambda a, b: b[1] & a[0], -1
    ),
    (Kind.MASKED, Kind.MASKED): Form(
        -2, lambda a, b: (a[0] ^ b[0]) & (a[1] & b[1]), lambda a, b: a[1] & b[1], 1
    ),
}
