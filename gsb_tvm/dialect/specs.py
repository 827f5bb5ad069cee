"""What each packed operator computes, as plain data: shapes, kinds of planes, order of float steps.

A spec is the whole contract between the graph and a kernel. The passes make one, the operator
carries it as JSON in its attribute ``spec``, :mod:`gsb_tvm.dialect.oracle` gives its meaning in
NumPy, and a kernel family turns it into a PrimFunc. Two calls with equal specs share one kernel:
weights, scales and thresholds are arguments, never part of the spec.

Argument order is always: inputs as listed by :func:`inputs`, then outputs as listed by
:func:`outputs`; both give ``(name, shape, dtype)``.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil, log2
from typing import Any, Protocol

import msgspec

from gsb_tvm.dialect.bits import WORD_BITS, Rows, words

Tensor = tuple[str, tuple[int, ...], str]


class Kind(StrEnum):
    """Kind of a plane."""

    SIGN = "sign"  # {-1, +1}: one packed tensor
    MASKED = "masked"  # {-1, 0, +1}: bits, nonzero, and a flag zeros[1] that is 0 when none is 0
    MASK = "mask"  # {0, 1}: one packed tensor


def plane(name: str, kind: Kind, rows: Rows) -> list[Tensor]:
    """Tensors that carry one plane of a live value."""
    tensors: list[Tensor] = [(f"{name}_bits", rows.packed_shape, "uint32")]
    if kind is Kind.MASKED:
        tensors += [
            (f"{name}_nonzero", rows.packed_shape, "uint32"),
            (f"{name}_zeros", (1,), "int32"),
        ]
    return tensors


class Spec(Protocol):
    """A packed operator's contract."""

    def inputs(self) -> list[Tensor]:
        """Tensors read, in order."""

    def outputs(self) -> list[Tensor]:
        """Tensors written, in order."""


@dataclass(frozen=True)
class Compare:
    """How a float becomes a bit: ``u > bound`` where strict, else ``u >= bound``.

    A masked sign has ``bound == 0`` and strict; its nonzero bit is ``u != 0`` (NaN counts as 0).
    """

    kind: Kind
    bound: float = 0.0
    strict: bool = True


@dataclass(frozen=True)
class Binarize:
    """Layer norm (optional), shift (optional), compare, pack.

    ``u = (x - mean) / sqrt(var + eps) * gamma + beta + shift`` over the features of each token,
    every step rounded to float32 in this order; biased variance. x is (batch, tokens, features).
    """

    rows: Rows
    compare: Compare
    norm: bool
    shift: bool
    eps: float = 0.0

    def inputs(self) -> list[Tensor]:
        """x, then gamma and beta, then shift."""
        r = self.rows
        vector = (r.features,)
        return [
            ("x", (r.batch, r.tokens, r.features), "float32"),
            *([("gamma", vector, "float32"), ("beta", vector, "float32")] if self.norm else []),
            *([("shift", vector, "float32")] if self.shift else []),
        ]

    def outputs(self) -> list[Tensor]:
        """One plane."""
        return plane("out", self.compare.kind, self.rows)


class Operand(StrEnum):
    """Where the second operand of a float step comes from."""

    SCALAR = "scalar"  # float32[1]
    COLUMN = "column"  # float32[columns]
    TENSOR = "tensor"  # float32[batch, tokens, columns]


@dataclass(frozen=True)
class Step:
    """One float32 step of an epilogue: ``y = y op operand`` with op in {"mul", "add"}."""

    op: str
    operand: Operand


@dataclass(frozen=True)
class Thresholds:
    """Epilogue of a dense layer that writes bits straight from the integer.

    bit = ((dot - lo) as uint32 <= width) != flip; per column. Where kind is MASKED the value is
    zero when ((dot - zero_lo) as uint32 <= zero_width). An empty set is lo = the largest number of
    its type, width = 0. Bounds are 16 bits wide where that holds every dot.
    Columns are those of ``rows`` padded to whole words (:func:`gsb_tvm.dialect.bits.pad_columns`).
    """

    rows: Rows
    kind: Kind


@dataclass(frozen=True)
class Dense:
    """Activation plane times packed constant weights.

    ``dot[b, t, n] = sum_k a[b, t, k] * w[n, k]`` exactly, int32; then float steps and a float32
    output (batch, tokens, columns), or thresholds and a packed plane.
    """

    rows: Rows
    activation: Kind
    weight: Kind
    columns: int
    column_tile: int
    steps: tuple[Step, ...] = ()
    thresholds: Thresholds | None = None

    @property
    def computed_columns(self) -> int:
        """Columns before padding to the tile: whole words where bits are written."""
        if self.thresholds is None:
            return self.columns
        return self.thresholds.rows.groups * words(self.thresholds.rows.width) * WORD_BITS

    @property
    def threshold_bits(self) -> int:
        """Width of a threshold's type: 16 where dots in [-K, K] and widths up to 2 K fit."""
        return 16 if self.rows.features < 2**14 else 32

    @property
    def padded_columns(self) -> int:
        """Columns the weight tensor holds."""
        return -(-self.computed_columns // self.column_tile) * self.column_tile

    def inputs(self) -> list[Tensor]:
        """Activation plane, weight, weight's nonzero plane, then thresholds or step operands."""
        n = self.padded_columns
        packed = (n // self.column_tile, self.rows.packed_shape[1], self.column_tile)
        tensors = [*plane("a", self.activation, self.rows), ("weight", packed, "uint32")]
        if self.weight is Kind.MASKED:
            tensors.append(("weight_nonzero", packed, "uint32"))
        if self.thresholds is not None:
            bits = self.threshold_bits
            sides = [("lo", (n,), f"int{bits}"), ("width", (n,), f"uint{bits}")]
            tensors += [*sides, ("flip", (n // WORD_BITS,), "uint32")]  # bit j of word i: 32i + j
            if self.thresholds.kind is Kind.MASKED:
                tensors += [(f"zero_{name}", shape, dtype) for name, shape, dtype in sides]
            return tensors
        full = (self.rows.batch, self.rows.tokens, self.columns)
        for i, step in enumerate(self.steps):
            shape = {Operand.SCALAR: (1,), Operand.COLUMN: (n,), Operand.TENSOR: full}
            tensors.append((f"operand{i}", shape[step.operand], "float32"))
        return tensors

    def outputs(self) -> list[Tensor]:
        """A plane, or y."""
        if self.thresholds is not None:
            return plane("out", self.thresholds.kind, self.thresholds.rows)
        return [("y", (self.rows.batch, self.rows.tokens, self.columns), "float32")]


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
        count = self.q.groups * self.q.tokens * self.q.tokens + 64
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


@dataclass(frozen=True)
class BatchMatmul:
    """General product of two live superposed tensors, contracted over the packed features.

    ``y[b, i, j] = sum_g sum_r a_scale[g] * b_scale[r] * (A_g[b, i, :] . B_r[b, j, :])``,
    float32 (batch, a.tokens, b.tokens). Every plane has its own kind.
    """

    a: Rows
    b: Rows
    a_kinds: tuple[Kind, ...]
    b_kinds: tuple[Kind, ...]

    def inputs(self) -> list[Tensor]:
        """Planes of a, planes of b, scales of a, scales of b."""
        tensors: list[Tensor] = []
        for name, rows, kinds in (("a", self.a, self.a_kinds), ("b", self.b, self.b_kinds)):
            for i, kind in enumerate(kinds):
                tensors += plane(f"{name}{i}", kind, rows)
        for name, kinds in (("a", self.a_kinds), ("b", self.b_kinds)):
            tensors.append((f"{name}_scale", (len(kinds),), "float32"))
        return tensors

    def outputs(self) -> list[Tensor]:
        """The float product."""
        return [("y", (self.a.batch, self.a.tokens, self.b.tokens), "float32")]


def spread_of(width: int, scale: float) -> int:
    """Power of two that bounds ``max(x) - min(x)`` of scores ``x = dot * scale``, rounded or not.

    Dot products lie in [-width, width]; scale is the product of all factors, finite. At least 64:
    finer steps would tell blocks apart that no kernel treats differently.
    """
    return 1 << max(6, ceil(log2(max(1.0, 2.0 * width * abs(scale) * (1 + 2**-20)))))


_SPECS = {
    cls.__name__: cls
    for cls in (Binarize, Dense, ValuePlanes, AttentionPlanes, AttentionValue, BatchMatmul)
}


def encode(spec: Any) -> str:
    """Spec as text, class name then JSON: equal for equal specs."""
    return f"{type(spec).__name__} {msgspec.json.encode(spec, order='deterministic').decode()}"


def decode(text: str) -> Any:
    """Inverse of :func:`encode`."""
    name, fields = text.split(" ", 1)
    return msgspec.json.decode(fields, type=_SPECS[name])
