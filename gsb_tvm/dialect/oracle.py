"""The meaning of every packed operator in NumPy: slow, plain, exact in its integers.

Kernels are tested against these functions; a module in which packed operators stand runs on them
before the kernels exist. Integers are int64; float steps are float32 in the order the spec gives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gsb_tvm.dialect.bits import (
    WORD_BITS,
    Floats,
    Rows,
    pack_rows,
    signed,
    unpack_rows,
    unpack_weight,
    words,
)
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Compare,
    Dense,
    Kind,
    Operand,
    Patches,
    ValuePlanes,
)

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


def compute(spec: Any, inputs: Sequence[Array]) -> list[Array]:
    """Outputs of ``spec`` on ``inputs`` (both in the spec's order)."""
    named = {name: array for (name, _, _), array in zip(spec.inputs(), inputs, strict=True)}
    return _MEANING[type(spec)](spec, named)


def plane_values(arrays: Arrays, name: str, kind: Kind, rows: Rows) -> npt.NDArray[np.int64]:
    """int64 values (batch, tokens, features) of the plane called ``name``."""
    bits = unpack_rows(arrays[f"{name}_bits"], rows)
    if kind is Kind.MASK:
        return bits.astype(np.int64)
    nonzero = unpack_rows(arrays[f"{name}_nonzero"], rows) if kind is Kind.MASKED else None
    return signed(bits, nonzero)


def _above(u: Floats, compare: Compare) -> npt.NDArray[np.bool_]:
    return u > np.float32(compare.bound) if compare.strict else u >= np.float32(compare.bound)


def _emit(bits: Array, nonzero: Array, kind: Kind, rows: Rows) -> list[Array]:
    if kind is not Kind.MASKED:
        return [pack_rows(bits, rows)]
    flag = np.array([0 if nonzero.all() else 1], dtype=np.int32)
    return [pack_rows(bits & nonzero, rows), pack_rows(nonzero, rows), flag]


def _compare(u: Floats, compare: Compare, rows: Rows) -> list[Array]:
    return _emit(_above(u, compare), (u > 0) | (u < 0), compare.kind, rows)


def layer_norm(x: Floats, gamma: Floats, beta: Floats, eps: float) -> Floats:
    """Row normalisation over the last axis; sums in float64, every elementwise step in float32."""
    mean = x.mean(-1, keepdims=True, dtype=np.float64).astype(np.float32)
    centred = x - mean
    variance = (centred.astype(np.float64) ** 2).mean(-1, keepdims=True).astype(np.float32)
    return centred / np.sqrt(variance + np.float32(eps)) * gamma + beta


def _binarize(spec: Binarize, t: Arrays) -> list[Array]:
    u = layer_norm(t["x"], t["gamma"], t["beta"], spec.eps) if spec.norm else t["x"]
    if spec.shift:
        u = u + t["shift"]
    return _compare(u, spec.compare, spec.rows)


def _dense(spec: Dense, t: Arrays) -> list[Array]:
    rows = spec.rows
    shape = {"groups": rows.groups, "width": rows.width, "columns": spec.padded_columns}
    nonzero = unpack_weight(t["weight_nonzero"], **shape) if spec.weight is Kind.MASKED else None
    weight = signed(unpack_weight(t["weight"], **shape), nonzero)
    dot = plane_values(t, "a", spec.activation, rows) @ weight.T
    if spec.thresholds is not None:
        return _threshold(spec, t, dot)
    y = dot[..., : spec.columns].astype(np.float32)
    for i, step in enumerate(spec.steps):
        operand = t[f"operand{i}"]
        if step.operand is Operand.COLUMN:
            operand = operand[: spec.columns]
        y = y * operand if step.op == "mul" else y + operand
    return [y]


def within(value: Array, low: Array, width: Array) -> npt.NDArray[np.bool_]:
    """Whether ``(value - low) as uint32 <= width``: low <= value <= low + width."""
    return ((value - low.astype(np.int64)) & 0xFFFFFFFF) <= width.astype(np.int64)


def _threshold(spec: Dense, t: Arrays, dot: Array) -> list[Array]:
    assert spec.thresholds is not None
    rows = spec.thresholds.rows
    flip = np.unpackbits(t["flip"].view(np.uint8), bitorder="little").astype(bool)
    columns = _real_columns(rows)
    bits = (within(dot, t["lo"], t["width"]) != flip)[..., columns]
    if spec.thresholds.kind is not Kind.MASKED:
        return _emit(bits, bits, spec.thresholds.kind, rows)
    nonzero = ~within(dot, t["zero_lo"], t["zero_width"])[..., columns]
    return _emit(bits, nonzero, Kind.MASKED, rows)


def _real_columns(rows: Rows) -> Array:
    per_group = words(rows.width) * WORD_BITS
    return (np.arange(rows.groups)[:, None] * per_group + np.arange(rows.width)).reshape(-1)


def _value_planes(spec: ValuePlanes, t: Arrays) -> list[Array]:
    u = t["x"] + t["shift"] if spec.shift else t["x"]
    masks = [
        pack_rows((u > np.float32(r) * u.max()) | (u < np.float32(r) * u.min()), spec.rows)
        for r in spec.ratios
    ]
    return [*_compare(u, Compare(spec.kind), spec.rows), np.stack(masks)]


def _attention_planes(spec: AttentionPlanes, t: Arrays) -> list[Array]:
    q = plane_values(t, "q", spec.query_kind, spec.q)
    k = plane_values(t, "k", spec.key_kind, spec.q)
    split = (spec.q.batch, spec.q.tokens, spec.q.groups, spec.q.width)
    dot = np.einsum("bihd,bjhd->bhij", q.reshape(split), k.reshape(split))
    scale, factor, bound = t["scalars"]
    x = dot.astype(np.float32) * scale
    if spec.factors == 2:
        x = x * factor
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32)
    if spec.bias:
        heads, n = spec.q.groups, spec.q.tokens
        p = p + t["bias"][: heads * n * n].reshape(heads, n, n)
    masks = [_above(p, Compare(Kind.MASK, float(bound), spec.strict))]
    masks += [p > np.float32(ratio) * p.max() for ratio in spec.ratios]
    by_row = [m.transpose(0, 2, 1, 3).reshape(p.shape[0], p.shape[2], -1) for m in masks]
    return [np.stack([pack_rows(m, spec.rows) for m in by_row])]


def _attention_value(spec: AttentionValue, t: Arrays) -> list[Array]:
    v = spec.v
    split = (v.batch, v.tokens, v.groups, v.width)
    base = plane_values(t, "v", spec.value_kind, v)
    values = [base] + [base * unpack_rows(t["v_masks"][r], v) for r in range(spec.v_groups - 1)]
    out = np.zeros(split, dtype=np.float64)
    for g in range(spec.p_groups):
        p = unpack_rows(t["p_masks"][g], spec.p).astype(np.int64)
        p = p.reshape(v.batch, v.tokens, v.groups, v.tokens)
        for r, value in enumerate(values):
            dot = np.einsum("bihj,bjhd->bihd", p, value.reshape(split))
            scale = t["p_scale"][g].astype(np.float64) * t["v_scale"][r].astype(np.float64)
            out += dot * scale[:, None]
    o = out.reshape(v.batch, v.tokens, v.features).astype(np.float32)
    if spec.compare is None:
        return [o]
    return _compare(o + t["shift"] if spec.shift else o, spec.compare, v)


def _batch_matmul(spec: BatchMatmul, t: Arrays) -> list[Array]:
    out = np.zeros((spec.a.batch, spec.a.tokens, spec.b.tokens), dtype=np.float64)
    for g, a_kind in enumerate(spec.a_kinds):
        a = plane_values(t, f"a{g}", a_kind, spec.a)
        for r, b_kind in enumerate(spec.b_kinds):
            dot = a @ plane_values(t, f"b{r}", b_kind, spec.b).transpose(0, 2, 1)
            out += dot * (float(t["a_scale"][g]) * float(t["b_scale"][r]))
    return [out.astype(np.float32)]


def _patches(spec: Patches, t: Arrays) -> list[Array]:
    (down, across), (height, width) = spec.grid, spec.patch
    image = t["image"][:, :, : down * height, : across * width]
    cut = image.reshape(spec.batch, spec.channels, down, height, across, width)
    patches = cut.transpose(0, 2, 4, 1, 3, 5).reshape(spec.batch, down * across, spec.depth)
    weight = t["weight"].astype(np.float32)
    if spec.lattice:
        weight = weight * t["scale"]
    y = (patches.astype(np.float64) @ weight.astype(np.float64)).astype(np.float32)
    if spec.bias:
        y = y + t["bias"]
    if spec.position:
        y = y + t["position"]
    if spec.prefix:
        rows = np.broadcast_to(t["rows"], (spec.batch, *t["rows"].shape))
        y = np.concatenate([rows, y], axis=1)
    return [y]


_MEANING: dict[type, Callable[[Any, Arrays], list[Array]]] = {
    Binarize: _binarize,
    Dense: _dense,
    ValuePlanes: _value_planes,
    AttentionPlanes: _attention_planes,
    AttentionValue: _attention_value,
    BatchMatmul: _batch_matmul,
    Patches: _patches,
}
