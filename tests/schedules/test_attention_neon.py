"""Attention planes on Neon give the bits of the general path, however near an edge a value is."""

import numpy as np
import pytest

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import AttentionPlanes, Kind
from gsb_tvm.schedules.families import kernel
from tests.schedules.cuts import WHOLE, Cut
from tests.schedules.levels import ARM, compiled, profile_of, runnable, target_of
from tests.schedules.test_attention_planes import inputs_of, run, spec_of, values

SIGNS = (Kind.SIGN, Kind.SIGN)
ELSEWHERE = "x86-64"  # no table, no estimates
# Widths of one word and of two; 64 has a count beyond the table; whole and ragged rows of keys.
SHAPES = [Rows(1, 37, 2, 24), Rows(1, 70, 2, 64), Rows(2, 32, 1, 64), Rows(1, 23, 1, 127)]


def case_of(rows, *, kinds=SIGNS, bias=True, ratios=(0.7, 0.9), strict=True, bound=0.0625):
    return spec_of(rows, *kinds, 0.3, 0.37, bias=bias, bound=bound, strict=strict, ratios=ratios)


def same(case, inputs, cut=WHOLE):
    """Both levels write the same words."""
    runnable(target_of(ARM[0]))
    runnable(target_of(ELSEWHERE))
    spec, tokens = case[0], case[0].q.tokens
    got, want = (run(spec, level, cut, inputs)[..., :tokens] for level in (ARM[0], ELSEWHERE))
    np.testing.assert_array_equal(got, want)
    return want


def beside(rng, p, aims):
    """Biases that put about one value of a row within one unit of an aim, the rest farther off.

    Steps of half a unit make sums that are nearly ties, which the last bit of p rounds up or down.
    """
    near = (rng.random(p.shape) < 1 / p.shape[-1]) | (aims > 0.5)
    steps = rng.integers(-2, 3, p.shape) * np.abs(aims) * np.float32(2.0**-24)
    away = rng.choice(np.float32([-0.1, 0.1]), p.shape) * rng.random(p.shape, np.float32)
    return (aims - p) + np.where(near, steps, aims * away)


def without_bias(case, inputs):
    """p of the first image, with the bias set to 0."""
    inputs[-1][:-64] = 0
    return values(case[0], inputs)[0][0].astype(np.float32)


@pytest.mark.parametrize("rows", SHAPES, ids=str)
def test_values_beside_the_bound(rows):
    case = case_of(rows, strict=rows.groups == 1, ratios=())
    rng = np.random.default_rng(rows.tokens)
    for _ in range(8):
        inputs = inputs_of(rng, case, "fair", 0.0)
        p = without_bias(case, inputs)
        inputs[-1][:-64] = beside(rng, p, np.float32(0.0625)).ravel()
        want = same(case, inputs, Cut(3))
        assert want[0].any()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rows", SHAPES[:2], ids=str)
def test_values_beside_the_ratios_of_the_maximum(rows, sign):
    """Few words are listed, each for one value; the bound is so near that distances are fine."""
    case = case_of(rows, bound=sign * 0.6999)
    rng = np.random.default_rng(0)
    for _ in range(4):
        inputs = inputs_of(rng, case, "fair", 0.0)
        p = without_bias(case, inputs)
        aims = np.full(p.shape, 0.3, np.float32)
        high = rng.random(p.shape) < 0.5 / p.shape[-1]
        aims[high] = rng.choice(np.float32([0.7, 0.9]), int(high.sum()))
        aims[:, 0, 0] = 1
        inputs[-1][:-64] = beside(rng, p, aims if sign > 0 else aims - 2).ravel()
        want = same(case, inputs)
        assert (sign > 0) == bool(want[1:].any())


@pytest.mark.parametrize(
    ("kinds", "bias", "ratios"),
    [
        ((Kind.MASKED, Kind.SIGN), True, ()),
        ((Kind.MASK, Kind.MASKED), True, (0.5,)),
        (SIGNS, False, (0.5,)),
        (SIGNS, False, ()),
    ],
    ids=str,
)
def test_kinds_bias_and_ratios(kinds, bias, ratios):
    case = case_of(SHAPES[0], kinds=kinds, bias=bias, ratios=ratios, bound=0.03)
    rng = np.random.default_rng(1)
    for style in ("fair", "opposite", "ones"):
        same(case, inputs_of(rng, case, style, 0.0))


def test_keys_like_the_query():
    """Counts of 64, which the table in registers has no place for, beside all others."""
    case = case_of(Rows(1, 70, 1, 64))
    spec = case[0]
    inputs = inputs_of(np.random.default_rng(2), case, "fair", 0.0)
    q, k = inputs[:2]
    k[..., : spec.q.tokens] = q[..., : spec.q.tokens]
    k[0, :, 1] = ~q[0, :, 0]
    same(case, inputs)


def test_finds_its_instructions():
    """Counting, tables and packing without going through lanes one by one."""
    spec, _ = case_of(Rows(1, 64, 1, 64))
    assert isinstance(spec, AttentionPlanes)
    profile = profile_of("llvm -mcpu=cortex-a72 -mtriple=aarch64-linux-gnu")
    assembly = compiled(kernel(spec, profile), profile).mod.inspect_source("asm")
    for instruction in ("cnt", "addp", "tbl", "uzp2", "smaxv", "uminv", "prfm"):
        assert f"\t{instruction}\t" in assembly
    assert "umov" not in assembly
