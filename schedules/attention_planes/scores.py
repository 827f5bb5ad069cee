"""Scores: dot products of one packed query with a piece of the keys, lanes along the keys.

Every plane is a sign where a support: a mask's sign is always +1, a sign plane's support is
everything. With S the common support and D the positions of differing signs,
``dot = |S| - 2 * |S and D|``.
"""

from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import words
from gsb_tvm.dialect.specs import AttentionPlanes, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes.row import Piece
from gsb_tvm.schedules.counting import count_words, dot_of
from gsb_tvm.targets import Profile

Buffers = dict[str, v.Buffer]


@dataclass(frozen=True)
class Head:
    """Where a product happens: batch, head, and the kinds its planes are taken for."""

    batch: v.Expr
    head: v.Expr
    query_kind: Kind
    key_kind: Kind

    def as_signs(self) -> "Head":
        """The same where no plane holds zeros."""
        return Head(self.batch, self.head, as_signs(self.query_kind), as_signs(self.key_kind))


def as_signs(kind: Kind) -> Kind:
    """Kind of a plane whose zero flag is 0."""
    return Kind.SIGN if kind is Kind.MASKED else kind


def flags(spec: AttentionPlanes, t: Buffers) -> v.Expr | None:
    """Whether a masked plane holds zeros; None where no plane is masked."""
    names = [("q", spec.query_kind), ("k", spec.key_kind)]
    masked = [t[f"{name}_zeros"][0] for name, kind in names if kind is Kind.MASKED]
    if not masked:
        return None
    return v.bind(masked[0] if len(masked) == 1 else masked[0] | masked[1])


def dot(
    spec: AttentionPlanes, profile: Profile, t: Buffers, at: Head, query: v.Expr, piece: Piece
) -> v.Expr:
    """int32 dot products of token ``query`` with the keys of ``piece``."""
    counts = count(spec, profile, t, at, query, piece)
    kinds = {at.query_kind, at.key_kind}
    support = v.splat(spec.q.width, piece.lanes, "int32") if kinds == {Kind.SIGN} else counts[0]
    return support if kinds == {Kind.MASK} else support - (counts[-1] + counts[-1])


def count(
    spec: AttentionPlanes, profile: Profile, t: Buffers, at: Head, query: v.Expr, piece: Piece
) -> list[v.Expr]:
    """int32 sizes of the common support, where it is not everything, and of the differing signs."""
    lanes, per_head = piece.lanes, words(spec.q.width)

    def vectors(k: v.Expr) -> list[v.Expr]:
        def read(plane: str) -> v.Expr:
            index = (at.batch, at.head * per_head + k)
            if plane.startswith("q"):
                return v.splat(t[plane][(*index, query)], lanes, "uint32")
            return v.load(t[plane], *index, piece.first, lanes=lanes)

        signs, supports = [], []
        for name, kind in (("q", at.query_kind), ("k", at.key_kind)):
            bits = read(f"{name}_bits")
            signs += [] if kind is Kind.MASK else [bits]
            supports += [bits] if kind is Kind.MASK else []
            supports += [read(f"{name}_nonzero")] if kind is Kind.MASKED else []
        return _counted(signs, supports, lanes)

    kinds = {at.query_kind, at.key_kind}
    number = 1 if kinds in ({Kind.SIGN}, {Kind.MASK}) else 2
    total = count_words(profile, per_head, lanes, number, vectors)
    return [dot_of(v.load(total, i, 0, lanes=lanes), lanes) for i in range(number)]


def _counted(signs: list[v.Expr], supports: list[v.Expr], lanes: int) -> list[v.Expr]:
    """Vectors whose bits are counted: the common support, then the differing signs in it."""
    ones = v.splat(tirx.const(0xFFFFFFFF, "uint32"), lanes)
    if not supports:
        return [signs[0] ^ signs[1]]
    support = v.bind(supports[0] if len(supports) == 1 else supports[0] & supports[1])
    if not signs:
        return [support]
    differing = signs[0] ^ (signs[1] if len(signs) == 2 else ones)
    return [support, support & differing]


def scaled(spec: AttentionPlanes, scalars: v.Buffer, products: v.Expr, lanes: int) -> v.Expr:
    """Float scores, rounded after each factor."""
    x = T.cast(products, f"float32x{lanes}")
    for i in range(spec.factors):
        x = v.rounded(x * v.splat(scalars[i], lanes))
    return x
