"""Random inputs of packed operators, and what a kernel must make of them.

Floats are such that the outcome does not depend on the order of a sum: small integers, halves,
rows that cancel. So a kernel that is right agrees with the oracle bit for bit, whatever its tiles.
One operator has a float inside that no choice of inputs makes exact, the softmax: there the bits
that rounding could turn are left open.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.attention_specs import BIAS_PADDING
from gsb_tvm.dialect.bits import Rows, pack_rows, pack_weight, pad_columns, pad_weight_columns
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Dense,
    Kind,
    Operand,
    Patches,
    ValuePlanes,
)

Array = npt.NDArray[Any]

_LIVE = frozenset({"x", "image"})
_LIVE_PLANES = frozenset({"a", "k", "p", "q", "v"})
Random = np.random.Generator

# Of set bits in GSB's masks beside the base, trained and untrained networks: mostly far below 1 %.
_MASK_DENSITY = 0.004
_BASE_DENSITY = 0.1
_OPEN = 2e-5  # relative distance from a bound within which rounding of a softmax may decide


@dataclass(frozen=True)
class Sample:
    """Inputs in the order of the spec, and the outputs.

    ``decided`` holds for each output the bits that must agree (uint32, like the output), or None
    where all of it must. ``tolerance`` is that of floats, relative to the largest. ``edges`` is the
    share of numbers that may be others altogether: where something is compared or rounded, the last
    digit of a sum may decide. ``live`` are the places of inputs that a model computes just before
    the call; its constants come from memory, each layer's from its own.
    """

    inputs: list[Array]
    outputs: list[Array]
    decided: list[Array | None]
    tolerance: float = 0.0
    edges: float = 0.0
    live: tuple[int, ...] = ()


def sample(spec: Any, rng: Random, *, zeros: bool) -> Sample:
    """A sample of a packed operator; ``zeros``: masked planes hold some.

    Where they hold none, as in most models, kernels have a faster way.
    """
    named = _INPUTS[type(spec)](spec, rng, zeros)
    return of_inputs(
        spec, [np.ascontiguousarray(named[name], dtype) for name, _, dtype in spec.inputs()]
    )


def of_inputs(spec: Any, inputs: Sequence[Array]) -> Sample:
    """The sample of inputs given, in the order of the spec."""
    outputs = oracle.compute(spec, inputs)
    decided: list[Array | None] = [
        _real_tokens(array, _tokens(spec)) if array.dtype == np.uint32 else None
        for array in outputs
    ]
    if isinstance(spec, AttentionPlanes):
        assert decided[0] is not None
        names = [name for name, _, _ in spec.inputs()]
        decided[0] &= _clear_of_bounds(spec, dict(zip(names, inputs, strict=True)))
    live = tuple(n for n, (name, _, _) in enumerate(spec.inputs()) if _is_live(spec, name))
    return Sample(list(inputs), outputs, decided, live=live)


def _is_live(spec: Any, name: str) -> bool:
    """Whether an input is no constant of the model."""
    if isinstance(spec, Dense) and name.startswith("operand"):
        return spec.steps[int(name.removeprefix("operand"))].operand is Operand.TENSOR
    if isinstance(spec, BatchMatmul):
        return not name.endswith("_scale")
    return name in _LIVE or (name.partition("_")[0] in _LIVE_PLANES and not name.endswith("_scale"))


def disagreement(sample: Sample, outputs: Sequence[Array]) -> str:
    """Where outputs are not those of a sample; "" where they are."""
    for i, (got, wanted, decided) in enumerate(
        zip(outputs, sample.outputs, sample.decided, strict=True)
    ):
        if decided is None:
            wrong = _differing(got, wanted, sample)
        else:
            wrong = int(np.bitwise_count((got ^ wanted) & decided).sum())
        if wrong:
            what = "numbers" if decided is None else "bits"
            return f"wrong result: {wrong} {what} of output {i}"
    return ""


def _differing(got: Array, wanted: Array, sample: Sample) -> int:
    """How many numbers are not those wanted; NaN is like NaN alone."""
    same = got == wanted
    if wanted.dtype.kind == "f":
        same |= np.isnan(got) & np.isnan(wanted)
        finite = np.isfinite(got) & np.isfinite(wanted)
        scale = max(1.0, float(np.abs(wanted[finite]).max(initial=0)))
        with np.errstate(invalid="ignore"):
            same |= finite & (np.abs(got - wanted) <= sample.tolerance * scale)
    differing = int((~same).sum())
    return differing if differing > wanted.size * sample.edges else 0


def _tokens(spec: Any) -> int:
    rows = getattr(spec, "rows", None) or getattr(spec, "v", None)
    assert isinstance(rows, Rows)
    return rows.tokens


def _real_tokens(array: Array, tokens: int) -> Array:
    """All bits of the tokens that are not padding."""
    decided = np.zeros_like(array)
    decided[..., :tokens] = 0xFFFFFFFF
    return decided


def _plane(
    name: str, kind: Kind, rows: Rows, rng: Random, zeros: bool, density: float = 0.5
) -> dict[str, Array]:
    shape = (rows.batch, rows.tokens, rows.features)
    bits = rng.random(shape) < density
    if kind is not Kind.MASKED:
        return {f"{name}_bits": _packed(bits, rows, rng)}
    nonzero = rng.random(shape) >= (0.05 if zeros else 0.0)
    return {
        f"{name}_bits": _packed(bits & nonzero, rows, rng),
        f"{name}_nonzero": _packed(nonzero, rows, rng),
        f"{name}_zeros": np.array([int(not nonzero.all())], np.int32),
    }


def _packed(bits: Array, rows: Rows, rng: Random) -> Array:
    """Words whose padding tokens hold anything."""
    words = pack_rows(bits, rows)
    padding = words[:, :, rows.tokens :]
    padding[:] = rng.integers(0, 2**32, padding.shape, dtype=np.uint32)
    return words


def _halves(rng: Random, *shape: int) -> Array:
    return rng.integers(-6, 7, shape).astype(np.float32) / 2


def _binarize(spec: Binarize, rng: Random, _zeros: bool) -> dict[str, Array]:
    rows = spec.rows
    half = rng.integers(-9, 10, (rows.batch, rows.tokens, rows.features // 2))
    middle = np.zeros((rows.batch, rows.tokens, rows.features % 2), np.int64)
    x = rng.permuted(np.concatenate([half, middle, -half], axis=-1), axis=-1)
    vectors = rng.standard_normal((3, rows.features)).astype(np.float32)
    return {"x": x.astype(np.float32), "gamma": vectors[0], "beta": vectors[1], "shift": vectors[2]}


def _dense(spec: Dense, rng: Random, zeros: bool) -> dict[str, Array]:
    rows = spec.rows
    named = _plane("a", spec.activation, rows, rng, zeros)
    for name, density in (("weight", 0.5), ("weight_nonzero", 0.8)):
        plane = rng.random((spec.columns, rows.features)) < density
        if spec.thresholds is not None:
            plane = pad_weight_columns(plane, spec.thresholds.rows)
        named[name] = pack_weight(plane, groups=rows.groups, column_tile=spec.column_tile)
    for name, shape, dtype in spec.inputs():
        if name.startswith("operand"):
            named[name] = rng.integers(-4, 5, shape).astype(dtype)
        elif name.endswith(("lo", "width", "flip")):
            named[name] = _threshold(spec, rng, name, shape, dtype)
    return named


def _threshold(spec: Dense, rng: Random, name: str, shape: tuple[int, ...], dtype: str) -> Array:
    """Sets of integers around the middle; none in the padding."""
    assert spec.thresholds is not None
    rows, spread = spec.thresholds.rows, int(spec.rows.features**0.5) + 2
    if name == "flip":
        flips = pad_columns(rng.random(rows.features) < 0.5, rows)
        out = np.zeros(shape, np.uint32)
        packed = np.packbits(flips, bitorder="little").view(np.uint32)
        out[: len(packed)] = packed
        return out
    if name.endswith("lo"):
        most = np.iinfo(dtype).max
        values = pad_columns(rng.integers(-spread, spread, rows.features, dtype=dtype), rows, most)
        out = np.full(shape, most, dtype)
    else:
        top = 3 if name == "zero_width" else 2 * spec.rows.features
        values = pad_columns(rng.integers(0, top, rows.features, dtype=dtype), rows)
        out = np.zeros(shape, dtype)
    out[: len(values)] = values
    return out


def _value_planes(spec: ValuePlanes, rng: Random, _zeros: bool) -> dict[str, Array]:
    shapes = {name: shape for name, shape, _ in spec.inputs()}
    return {n: rng.standard_normal(shape, dtype=np.float32) for n, shape in shapes.items()}


def _attention_planes(spec: AttentionPlanes, rng: Random, zeros: bool) -> dict[str, Array]:
    # Half of what the spread permits, and below what makes a softmax of one key.
    total = min(spec.spread / (4.0 * spec.q.width), 0.25) * (1 if spec.increasing else -1)
    scale, factor = (total / 0.5, 0.5) if spec.factors == 2 else (total, 1.0)
    count = spec.q.groups * spec.q.tokens**2
    bias = rng.standard_normal(count + BIAS_PADDING).astype(np.float32) / (8 * spec.q.tokens)
    return {
        **_plane("q", spec.query_kind, spec.q, rng, zeros),
        **_plane("k", spec.key_kind, spec.q, rng, zeros),
        "scalars": np.array([scale, factor, 1.5 / spec.q.tokens], np.float32),
        **({"bias": bias} if spec.bias else {}),
    }


def _clear_of_bounds(spec: AttentionPlanes, named: dict[str, Array]) -> Array:
    """Words of bits whose value lies so far from each bound that no rounding reaches it."""
    p = _softmax(spec, named)
    bounds = [float(named["scalars"][2]), *(ratio * p.max() for ratio in spec.ratios)]
    near = [np.abs(p - bound) <= _OPEN * (abs(bound) + np.abs(p)) for bound in bounds]
    by_row = [m.transpose(0, 2, 1, 3).reshape(p.shape[0], p.shape[2], -1) for m in near]
    return ~np.stack([pack_rows(m, spec.rows) for m in by_row])


def _softmax(spec: AttentionPlanes, named: dict[str, Array]) -> npt.NDArray[np.float64]:
    """Softmax and bias in float64, (batch, heads, queries, keys)."""
    q = oracle.plane_values(named, "q", spec.query_kind, spec.q)
    k = oracle.plane_values(named, "k", spec.key_kind, spec.q)
    split = (spec.q.batch, spec.q.tokens, spec.q.groups, spec.q.width)
    parts = [each.reshape(split).transpose(0, 2, 1, 3).astype(np.float64) for each in (q, k)]
    factors = [float(each) for each in named["scalars"][: spec.factors]]
    x = parts[0] @ parts[1].transpose(0, 1, 3, 2) * prod(factors)
    e = np.exp(x - x.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    if not spec.bias:
        return p
    heads, n = spec.q.groups, spec.q.tokens
    return p + named["bias"][: heads * n * n].reshape(heads, n, n)


def _attention_value(spec: AttentionValue, rng: Random, zeros: bool) -> dict[str, Array]:
    shape = (spec.v.batch, spec.v.tokens, spec.v.features)
    keys = (spec.p.batch, spec.p.tokens, spec.p.features)
    p = rng.random((spec.p_groups, *keys)) < _MASK_DENSITY
    p[0] = rng.random(keys) < _BASE_DENSITY
    masks = [rng.random(shape) < _MASK_DENSITY for _ in range(spec.v_groups - 1)]
    # Positive scales, as GSB's are; some kernels take another way for those that are not.
    return {
        "p_masks": np.stack([_packed(plane, spec.p, rng) for plane in p]),
        **_plane("v", spec.value_kind, spec.v, rng, zeros),
        **({"v_masks": np.stack([_packed(m, spec.v, rng) for m in masks])} if masks else {}),
        "p_scale": np.abs(_halves(rng, spec.p_groups, spec.v.groups)) + np.float32(0.5),
        "v_scale": np.abs(_halves(rng, spec.v_groups, spec.v.groups)) + np.float32(0.5),
        **({"shift": _halves(rng, spec.v.features)} if spec.shift else {}),
    }


def _batch_matmul(spec: BatchMatmul, rng: Random, zeros: bool) -> dict[str, Array]:
    named: dict[str, Array] = {}
    for side, rows, kinds in (("a", spec.a, spec.a_kinds), ("b", spec.b, spec.b_kinds)):
        for i, kind in enumerate(kinds):
            named |= _plane(f"{side}{i}", kind, rows, rng, zeros)
        named[f"{side}_scale"] = _halves(rng, len(kinds))
    return named


def _patches(spec: Patches, rng: Random, _zeros: bool) -> dict[str, Array]:
    return {
        name: rng.integers(-8, 8, shape).astype(dtype)
        if dtype == "int8"
        else (rng.integers(1 if name == "scale" else -4, 5, shape) / 2).astype(dtype)
        for name, shape, dtype in spec.inputs()
    }


_INPUTS: dict[type, Any] = {
    AttentionPlanes: _attention_planes,
    AttentionValue: _attention_value,
    BatchMatmul: _batch_matmul,
    Binarize: _binarize,
    Dense: _dense,
    Patches: _patches,
    ValuePlanes: _value_planes,
}
