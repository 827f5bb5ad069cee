"""Specs of attention: nested planes of values and of the softmax, and their product.

See :mod:`gsb_tvm.dialect.specs`, which holds them all.
"""

from dataclasses import dataclass
from math import ceil, log2

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.planes import Compare, Kind, Tensor, plane

# Elements behind the flat bias: a vector that begins in its last row may end in them.
BIAS_PADDING = 64


@dataclass(frozen=True)
class ValuePlanes:
    """Sign plane of ``u = x + shift`` and nested masks of its extremes over the whole tensor.

    mask[r] = u > fl(ratio[r] * max(u)) or u < fl(ratio[r] * min(u)); max and min over everything,
    batch included. GSB, arXiv 2305.07931, values.
    """

    rows: Rows
    kind: Kind
    shift: bool
    ratios: tuple[float, ...]

    def inputs(self) -> list[Tensor]:
        """x (batch, tokens, features), shift (features,)."""
        r = self.rows
        x: Tensor = ("x", (r.batch, r.tokens, r.features), "float32")
        return [x, *([("shift", (r.features,), "float32")] if self.shift else [])]

    def outputs(self) -> list[Tensor]:
        """The sign plane, then masks (ratios, *packed)."""
        masks: Tensor = ("masks", (len(self.ratios), *self.rows.packed_shape), "uint32")
        return [*plane("out", self.kind, self.rows), masks]


@dataclass(frozen=True)
class AttentionPlanes:
    """Scores of packed queries and keys, softmax, bias, and nested masks of the result.

    ``x = fl(fl(dot * scale) * factor)`` (``factors`` 1: without factor), softmax over keys,
    ``p + bias``; base mask ``p' > bound`` (strict) or ``>=``, then mask r
    ``p' > fl(ratio[r] * max(p'))`` with the maximum over everything, batch included. GSB, arXiv
    2305.07931, attention. ``q`` holds (batch, tokens, heads, width); the result's rows are the
    queries, its groups the heads, its width the keys.

    What kernels may build on, whatever the numbers: ``increasing`` promises
    ``scale * factor > 0``, ``spread`` is a power of two with ``max(x) - min(x) <= spread``.
    """

    q: Rows
    query_kind: Kind
    key_kind: Kind
    factors: int
    increasing: bool
    spread: int
    bias: bool
    strict: bool
    ratios: tuple[float, ...]

    @property
    def rows(self) -> Rows:
        """Rows of the masks: one group per head, keys along the width."""
        return Rows(self.q.batch, self.q.tokens, self.q.groups, self.q.tokens)

    def inputs(self) -> list[Tensor]:
        """Query plane, key plane, scalars (scale, factor, bound), bias padded at its end only."""
        count = self.q.groups * self.q.tokens * self.q.tokens + BIAS_PADDING
        return [
            *plane("q", self.query_kind, self.q),
            *plane("k", self.key_kind, self.q),
            ("scalars", (3,), "float32"),
            *([("bias", (count,), "float32")] if self.bias else []),
        ]

    def outputs(self) -> list[Tensor]:
        """Masks (1 + ratios, *packed): base first."""
        return [("masks", (1 + len(self.ratios), *self.rows.packed_shape), "uint32")]


@dataclass(frozen=True)
class AttentionValue:
    """Product of superposed attention and superposed values.

    ``o[b, i, h] = sum_g sum_r p_scale[g, h] * v_scale[r, h] * (P_g[b, h, i] . V_r[b, :, h])``
    P_g are mask planes, V_0 the sign plane, V_r = V_0 where value mask r - 1. Then, where
    ``compare`` is given, ``o + shift`` is compared and packed; else float32 (batch, tokens,
    features) is written.
    """

    v: Rows  # (batch, tokens, heads, width)
    value_kind: Kind
    p_groups: int
    v_groups: int
    shift: bool
    compare: Compare | None

    @property
    def p(self) -> Rows:
        """Rows of the attention masks."""
        return Rows(self.v.batch, self.v.tokens, self.v.groups, self.v.tokens)

    def inputs(self) -> list[Tensor]:
        """Attention masks, value plane, value masks, scales, shift."""
        v, h = self.v, self.v.groups
        masks: list[Tensor] = [("v_masks", (self.v_groups - 1, *v.packed_shape), "uint32")]
        return [
            ("p_masks", (self.p_groups, *self.p.packed_shape), "uint32"),
            *plane("v", self.value_kind, v),
            *(masks if self.v_groups > 1 else []),
            ("p_scale", (self.p_groups, h), "float32"),
            ("v_scale", (self.v_groups, h), "float32"),
            *([("shift", (v.features,), "float32")] if self.shift else []),
        ]

    def outputs(self) -> list[Tensor]:
        """A plane or o."""
        if self.compare is not None:
            return plane("out", self.compare.kind, self.v)
        return [("o", (self.v.batch, self.v.tokens, self.v.features), "float32")]


def spread_of(width: int, scale: float) -> int:
    """Power of two that bounds ``max(x) - min(x)`` of scores ``x = dot * scale``, rounded or not.

    Dot products lie in [-width, width]; scale is the product of all factors, finite. At least 64:
    finer steps would tell blocks apart that no kernel treats differently.
    """
    return 1 << max(6, ceil(log2(max(1.0, 2.0 * width * abs(scale) * (1 + 2**-20)))))
