"""Attention planes against the oracle on every level this machine runs."""

from functools import cache

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, pack_rows, unpack_rows
from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.dialect.specs import AttentionPlanes, Kind, spread_of
from gsb_tvm.schedules.families import kernel
from gsb_tvm.targets import resolve
from tests.effort import examples
from tests.schedules.cuts import CUTS
from tests.schedules.levels import ALL, compiled, profile_of, runnable, target_of

SHAPES = [
    Rows(1, 1, 1, 1),
    Rows(2, 2, 1, 24),
    Rows(1, 5, 1, 4096),
    Rows(2, 15, 2, 24),
    Rows(1, 16, 2, 31),
    Rows(1, 17, 1, 32),
    Rows(1, 31, 3, 33),
    Rows(2, 33, 1, 63),
    Rows(1, 50, 2, 64),
    Rows(1, 64, 1, 65),
    Rows(1, 63, 1, 128),
    Rows(1, 70, 2, 127),
    Rows(1, 300, 1, 24),
]
RATIOS = [(), (0.7,), (0.9, 0.7), (0.25, 1.0, 0.5)]
# Scores that differ do so by at least 1. With 128 every exponential is 0 or 1 and with 0 all are 1,
# so sums are whole numbers and nothing depends on how a row was summed or exp approximated.
EXACT = [(128.0, None), (64.0, 2.0), (0.0, None), (-128.0, None)]
SMOOTH = [(0.125, None), (0.3, 0.37), (-0.05, None), (2.0, None)]


@cache
def build(spec, level, cut):
    profile = profile_of(target_of(level))
    return compiled(cut(kernel(spec, profile)), profile)


def run(spec, level, cut, inputs):
    """Masks, in a buffer that was full of ones before."""
    ((_, shape, dtype),) = spec.outputs()
    output = np.full(shape, 0xFFFFFFFF, dtype=dtype)
    tensors = [tvm.runtime.tensor(array) for array in (*inputs, output)]
    build(spec, level, cut)["main"](*tensors)
    return tensors[-1].numpy()


def plane(rng, kind, rows, style):
    """Tensors of a plane: fair bits, all equal, or all equal or opposite; zeros in some."""
    shape = (rows.batch, rows.tokens, rows.features)
    bits = rng.integers(0, 2, shape).astype(bool)
    if style != "fair":
        bits = np.full(shape, style != "none")
    if style == "opposite":
        bits[:, 1::3] = False
    if kind is not Kind.MASKED:
        return [pack_rows(bits, rows)]
    nonzero = rng.random(shape) < rng.choice([0.0, 0.5, 1.0])
    flag = np.array([0 if nonzero.all() else 1], dtype=np.int32)
    return [pack_rows(bits & nonzero, rows), pack_rows(nonzero, rows), flag]


def spec_of(q, query_kind, key_kind, scale, factor, *, bias, bound, strict, ratios):
    """A spec and the scalars it was made for."""
    total = scale if factor is None else scale * factor
    spec = AttentionPlanes(
        q=q,
        query_kind=query_kind,
        key_kind=key_kind,
        factors=1 if factor is None else 2,
        increasing=total > 0,
        spread=spread_of(q.width, total),
        bias=bias,
        strict=strict,
        ratios=ratios,
    )
    return spec, np.array([scale, 1.0 if factor is None else factor, bound], dtype=np.float32)


def inputs_of(rng, case, style, offset):
    """Inputs of a spec; the bias is a coarse grid around ``offset``, so that values tie."""
    spec, scalars = case
    arrays = plane(rng, spec.query_kind, spec.q, style)
    arrays += plane(rng, spec.key_kind, spec.q, style)
    arrays.append(scalars)
    if spec.bias:
        _, (count,), _ = spec.inputs()[-1]
        bias = (rng.integers(-3, 4, count) / 16 + offset).astype(np.float32)
        bias[-64:] = np.inf  # the padding must never be looked at
        arrays.append(bias)
    return arrays


@st.composite
def specs(draw, scales):
    scale, factor = draw(st.sampled_from(scales))
    return spec_of(
        draw(st.sampled_from(SHAPES)),
        draw(st.sampled_from(Kind)),
        draw(st.sampled_from(Kind)),
        scale,
        factor,
        bias=draw(st.booleans()),
        bound=draw(st.sampled_from([0.0, 0.0625, 0.3])),
        strict=draw(st.booleans()),
        ratios=draw(st.sampled_from(RATIOS)),
    )


DRAWS = [("fair", 0.0), ("opposite", 0.25), ("fair", -2.0), ("ones", 0.0), ("none", 1.0)]


@pytest.mark.parametrize("level", ALL)
@settings(max_examples=examples(20), deadline=None, derandomize=True)
@given(case=specs(EXACT), cut=CUTS, seed=st.integers(0, 2**31))
def test_equals_oracle(level, case, cut, seed):
    runnable(target_of(level))
    check_exact(level, case, cut, seed)


def check_exact(level, case, cut, seed):
    rng = np.random.default_rng(seed)
    spec, _ = case
    for style, offset in DRAWS:
        inputs = inputs_of(rng, case, style, offset)
        (want,) = oracle.compute(spec, inputs)
        tokens = spec.q.tokens
        got = run(spec, level, cut, inputs)
        np.testing.assert_array_equal(got[..., :tokens], want[..., :tokens])


def values(spec, inputs):
    """p' in float64, (batch, heads, queries, keys), and a bound of a float32 kernel's error.

    Each exponential is off by at most 4 units of 2**-24 against the other side's and the sum by one
    more per addition, at most tokens / 32 + 6 in sequence; quotient and bias round once each.
    """
    named = {name: array for (name, _, _), array in zip(spec.inputs(), inputs, strict=True)}
    q = oracle.plane_values(named, "q", spec.query_kind, spec.q)
    k = oracle.plane_values(named, "k", spec.key_kind, spec.q)
    split = (spec.q.batch, spec.q.tokens, spec.q.groups, spec.q.width)
    dot = np.einsum("bihd,bjhd->bhij", q.reshape(split), k.reshape(split))
    scale, factor, _ = named["scalars"]
    x = dot.astype(np.float32) * scale
    x = x if spec.factors == 1 else x * factor
    e = np.exp((x - x.max(-1, keepdims=True)).astype(np.float64))
    p = e / e.sum(-1, keepdims=True)
    heads, n = spec.q.groups, spec.q.tokens
    bias = named["bias"][: heads * n * n].reshape(heads, n, n) if spec.bias else 0.0
    unit = 2.0**-24
    return p + bias, (p * (n / 32 + 20) + np.abs(p + bias)) * unit + 2.0**-120


def check_smooth(level, case, cut, seed):
    rng = np.random.default_rng(seed)
    spec, (_, _, bound) = case
    for style, offset in DRAWS:
        inputs = inputs_of(rng, case, style, offset)
        want = oracle.compute(spec, inputs)[0]
        got = run(spec, level, cut, inputs)
        p, error = values(spec, inputs)
        for i, ratio in enumerate((None, *spec.ratios)):
            threshold = bound if ratio is None else ratio * p.max()
            slack = error + (0 if ratio is None else error.max() + abs(threshold) * 2.0**-23)
            close = np.abs(p - threshold) <= slack
            differ = unpack_rows(got[i], spec.rows) != unpack_rows(want[i], spec.rows)
            by_token = close.transpose(0, 2, 1, 3).reshape(differ.shape)
            assert not (differ & ~by_token).any()


@pytest.mark.parametrize("level", ALL)
@settings(max_examples=examples(20), deadline=None, derandomize=True)
@given(case=specs(SMOOTH), cut=CUTS, seed=st.integers(0, 2**31))
def test_close_to_oracle(level, case, cut, seed):
    runnable(target_of(level))
    check_smooth(level, case, cut, seed)


def test_compiles_for_arm():
    profile = resolve("llvm -mcpu=cortex-a72 -mtriple=aarch64-linux-gnu")
    kinds = (Kind.MASKED, Kind.SIGN)
    spec = AttentionPlanes(Rows(1, 50, 2, 64), *kinds, 1, True, 64, True, True, (0.7, 0.9))
    module = compiled(kernel(spec, profile), profile)
    assembly = module.mod.inspect_source("asm")
    assert "\tcnt\t" in assembly


@pytest.mark.parametrize("ratios", [(0.0,), (0.5, 1.5)])
def test_rejects(ratios):
    kinds = (Kind.SIGN, Kind.SIGN)
    spec = AttentionPlanes(Rows(1, 4, 1, 32), *kinds, 1, True, 64, False, True, ratios)
    with pytest.raises(ModelError, match="ratio"):
        kernel(spec, resolve("llvm -mcpu=haswell"))
