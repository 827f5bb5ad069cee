"""What each packed operator computes, as plain data: shapes, kinds of planes, order of float steps.

A spec is the whole contract between the graph and a kernel. The passes make one, the operator
carries it as JSON in its attribute ``spec``, :mod:`gsb_tvm.dialect.oracle` gives its meaning in
NumPy, and a kernel family turns it into a PrimFunc. Two calls with equal specs share one kernel:
weights, scales and thresholds are arguments, never part of the spec.

Argument order is always: inputs as listed by :meth:`Spec.inputs`, then outputs as
listed by :meth:`Spec.outputs`; both give ``(name, shape, dtype)``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from gsb_tvm.dialect.attention_specs import AttentionPlanes, AttentionValue, ValuePlanes, spread_of
from gsb_tvm.dialect.bits import WORD_BITS, Rows, words
from gsb_tvm.dialect.patch_specs import Patches
from gsb_tvm.dialect.planes import Compare, Kind, Tensor, plane

__all__ = [
    "AttentionPlanes",
    "AttentionValue",
    "BatchMatmul",
    "Binarize",
    "Compare",
    "Dense",
    "Kind",
    "Operand",
    "Patches",
    "Spec",
    "Step",
    "Tensor",
    "Thresholds",
    "ValuePlanes",
    "decode",
    "encode",
    "plane",
    "spread_of",
]


class Spec(Protocol):
    """A packed operator's contract."""

    def inputs(self) -> list[Tensor]:
        """Tensors read, in order."""

    def outputs(self) -> list[Tensor]:
        """Tensors written, in order."""


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


_SPECS = {
    cls.__name__: cls
    for cls in (
        Binarize,
        Dense,
        ValuePlanes,
        AttentionPlanes,
        AttentionValue,
        BatchMatmul,
        Patches,
    )
}


def encode(spec: Spec) -> str:
    """Spec as text, class name then JSON: equal for equal specs."""
    return f"{type(spec).__name__} {msgspec.json.encode(spec, order='deterministic').decode()}"


def decode(text: str) -> Any:
    """Inverse of :func:`encode`."""
    name, fields = text.split(" ", 1)
    return msgspec.json.decode(fields, type=_SPECS[name])
