"""Attention times values against its NumPy meaning, on every x86 level and on Arm."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, pack_rows
from gsb_tvm.dialect.specs import AttentionValue, Compare, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.limits import limits
from gsb_tvm.schedules.attention_value.space import rule, space
from gsb_tvm.schedules.attention_value.squares import transposed
from gsb_tvm.schedules.families import kernel
from gsb_tvm.targets import resolve
from tests.effort import examples
from tests.schedules import levels
from tests.schedules.cuts import CUTS, WHOLE, Cut
from tests.schedules.levels import runnable

LEVELS = {
    "avx512-vpopcntdq": "llvm -mcpu=icelake-server",
    "avx512": "llvm -mcpu=skylake-avx512",
    "avx2": "llvm -mcpu=haswell",
    "baseline": "llvm -mtriple=x86_64-linux-gnu",
    "arm": "llvm -mtriple=aarch64-linux-gnu -mcpu=cortex-a72",
}
ARM = LEVELS["arm"]
EMPTY, RARE, SOME, HALF, ALL = 0.0, 0.004, 0.05, 0.5, 1.0
# Density of the base attention, of the other attention masks, of the value masks: lists on both
# sides, planes on either, planes on both, nothing, everything.
DENSITIES = [
    (0.1, RARE, RARE),
    (0.1, RARE, HALF),
    (0.3, HALF, RARE),
    (HALF, HALF, HALF),
    (0.1, SOME, SOME),
    (0.1, EMPTY, EMPTY),
    (EMPTY, SOME, SOME),
    (ALL, ALL, ALL),
]
COMPARES = [
    None,
    Compare(Kind.SIGN),
    Compare(Kind.MASK, 0.25, False),
    Compare(Kind.MASK, 0.5, True),
    Compare(Kind.MASKED),
]
SUPERPOSED = AttentionValue(Rows(2, 37, 2, 24), Kind.MASKED, 3, 3, True, Compare(Kind.MASKED))
LONG = AttentionValue(Rows(1, 1030, 1, 40), Kind.SIGN, 2, 2, False, None)


@cache
def compiled(spec: AttentionValue, target: str, cut: Cut) -> Any:
    profile = resolve(target)
    return levels.compiled(cut(kernel(spec, profile)), profile)


def packed(rng: np.random.Generator, rows: Rows, density: float) -> np.ndarray:
    """A random plane; padding tokens hold anything."""
    words = pack_rows(rng.random((rows.batch, rows.tokens, rows.features)) < density, rows)
    padding = words[:, :, rows.tokens :]
    padding[:] = rng.integers(0, 2**32, padding.shape, dtype=np.uint32)
    return words


def halves(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Multiples of 1/2 up to 3: sums of their products with integers are exact in float32."""
    return rng.integers(-6, 7, shape).astype(np.float32) / 2


def arguments(
    spec: AttentionValue,
    rng: np.random.Generator,
    densities: tuple[float, float, float],
    zeros: bool,
) -> list[np.ndarray]:
    base, attention, values = densities
    p = [packed(rng, spec.p, attention if g else base) for g in range(spec.p_groups)]
    tensors = [np.stack(p), packed(rng, spec.v, rng.choice([0.0, 0.3, 0.5, 1.0]))]
    if spec.value_kind is Kind.MASKED:
        nonzero = packed(rng, spec.v, rng.choice([0.0, 0.5, 0.96]) if zeros else 1.0)
        tensors += [nonzero, np.array([zeros], dtype=np.int32)]
    if spec.v_groups > 1:
        tensors.append(np.stack([packed(rng, spec.v, values) for _ in range(spec.v_groups - 1)]))
    heads = spec.v.groups
    tensors += [halves(rng, spec.p_groups, heads), halves(rng, spec.v_groups, heads)]
    if spec.shift:
        tensors.append(halves(rng, spec.v.features))
    return tensors


def run(
    spec: AttentionValue, target: str, inputs: list[np.ndarray], cut: Cut = WHOLE
) -> list[np.ndarray]:
    """Outputs of the kernel, which began as 7s, without padding tokens."""
    outputs = [np.full(shape, 7, dtype) for _, shape, dtype in spec.outputs()]
    tensors = [tvm.runtime.tensor(x) for x in [*inputs, *outputs]]
    compiled(spec, target, cut)["main"](*tensors)
    return real([tensor.numpy() for tensor in tensors[len(inputs) :]], spec)


def real(outputs: list[np.ndarray], spec: AttentionValue) -> list[np.ndarray]:
    return [x[..., : spec.v.tokens] if x.dtype == np.uint32 else x for x in outputs]


def check(spec: AttentionValue, target: str, number: int, cut: Cut = WHOLE) -> None:
    rng = np.random.default_rng(number)
    for densities in DENSITIES:
        for zeros in (False, True) if spec.value_kind is Kind.MASKED else (False,):
            inputs = arguments(spec, rng, densities, zeros)
            expected = real(oracle.compute(spec, inputs), spec)
            for got, want in zip(run(spec, target, inputs, cut), expected, strict=True):
                np.testing.assert_array_equal(got, want, err_msg=f"{spec} {densities} {zeros}")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("value_kind", [Kind.SIGN, Kind.MASKED])
def test_superposed_on_both_sides(level: str, value_kind: Kind) -> None:
    runnable(LEVELS[level])
    check(replace(SUPERPOSED, value_kind=value_kind), LEVELS[level], number=1)


BACKWARDS = Cut(3, backwards=True)
DECIDED = [
    (AttentionValue(Rows(1, 70, 2, 64), Kind.MASKED, 3, 3, True, Compare(Kind.MASKED)), WHOLE),
    (
        AttentionValue(Rows(2, 33, 1, 32), Kind.SIGN, 1, 3, True, Compare(Kind.MASK, 0.25, False)),
        BACKWARDS,
    ),
    (AttentionValue(Rows(1, 47, 3, 96), Kind.MASKED, 2, 1, True, Compare(Kind.SIGN)), WHOLE),
    (AttentionValue(Rows(1, 253, 1, 32), Kind.SIGN, 1, 1, True, Compare(Kind.MASKED)), BACKWARDS),
    (AttentionValue(Rows(1, 64, 1, 32), Kind.SIGN, 3, 2, False, Compare(Kind.MASKED)), WHOLE),
    (AttentionValue(Rows(1, 5, 1, 64), Kind.SIGN, 2, 2, True, Compare(Kind.MASK, 0.5)), BACKWARDS),
]


@pytest.mark.parametrize(("spec", "cut"), DECIDED, ids=str)
def test_integers_decide(spec: AttentionValue, cut: Cut) -> None:
    """Positive weights, few bits in masks; shifts that meet products, and of any size."""
    runnable(ARM)
    rng = np.random.default_rng(4)
    sizes = np.float32([0, -0.0, 1e-30, 1e9, -1e9, np.inf, -np.inf, 0.25, 0.125, 150.5, -150.5])
    for base, attention, values in ((0.1, 0.002, 0.002), (1.0, 0.0, 0.002), (HALF, 0.002, 0.0)):
        inputs = arguments(spec, rng, (base, attention, values), zeros=False)
        shift = inputs.pop() if spec.shift else None
        inputs[-2:] = [np.abs(scale) + np.float32(0.5) for scale in inputs[-2:]]
        if shift is not None:
            some = rng.random(shift.shape) < 0.3
            inputs.append(np.where(some, rng.choice(sizes, shift.shape), shift * 4))
        expected = real(oracle.compute(spec, inputs), spec)
        for got, want in zip(run(spec, ARM, inputs, cut), expected, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("level", LEVELS)
def test_more_tokens_than_one_byte_counter_holds(level: str) -> None:
    runnable(LEVELS[level])
    check(LONG, LEVELS[level], number=2)


@st.composite
def specs(draw: st.DrawFn) -> AttentionValue:
    tokens = draw(st.integers(1, 70) | st.sampled_from([31, 32, 33, 64, 198]))
    heads, batch = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    width = draw(st.sampled_from([1, 2, 24, 31, 32, 33, 63, 64, 65, 100, 128, 1000]))
    return AttentionValue(
        Rows(batch, tokens, heads, width),
        draw(st.sampled_from([Kind.SIGN, Kind.MASKED])),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 3)),
        draw(st.booleans()),
        draw(st.sampled_from(COMPARES)),
    )


@pytest.mark.parametrize("level", LEVELS)
def test_any_shape(level: str) -> None:
    runnable(LEVELS[level])

    @seed(30)
    @settings(max_examples=examples(12), deadline=None, database=None)
    @given(specs(), st.integers(0, 2**31), CUTS)
    def examine(spec: AttentionValue, number: int, cut: Cut) -> None:
        check(spec, LEVELS[level], number, cut)

    examine()


@pytest.mark.parametrize("density", [RARE, HALF])
def test_error_bound_with_arbitrary_scales(density: float) -> None:
    """The bound that the kernel's module states, with the number of terms taken generously."""
    target = LEVELS["baseline"]
    spec = AttentionValue(Rows(1, 50, 2, 40), Kind.SIGN, 3, 3, False, None)
    rng = np.random.default_rng(3)
    inputs = arguments(spec, rng, (0.3, density, density), zeros=False)
    inputs[-2:] = [rng.normal(size=(3, 2)).astype(np.float32) for _ in range(2)]
    expected = oracle.compute(spec, inputs)[0]
    weights = np.abs(inputs[-2]).sum(0) * np.abs(inputs[-1]).sum(0)  # (heads,)
    magnitude = np.repeat(weights, spec.v.width) * spec.v.tokens
    terms = 2 * spec.v.tokens + 9
    assert (np.abs(run(spec, target, inputs)[0] - expected) <= magnitude * terms * 2.0**-24).all()


def test_one_plane_on_each_side_rounds_once() -> None:
    target = LEVELS["baseline"]
    spec = AttentionValue(Rows(1, 50, 2, 40), Kind.SIGN, 1, 1, False, None)
    rng = np.random.default_rng(4)
    inputs = arguments(spec, rng, (0.3, EMPTY, EMPTY), zeros=False)
    inputs[-2:] = [np.ones((1, 2), np.float32), np.array([[0.1, 1 / 3]], np.float32)]
    np.testing.assert_array_equal(run(spec, target, inputs)[0], oracle.compute(spec, inputs)[0])


@pytest.mark.parametrize("spec", [LONG, SUPERPOSED], ids=["floats", "bits"])
def test_compiles_to_byte_counts_on_arm(spec: AttentionValue) -> None:
    assert "cnt\tv" in compiled(spec, ARM, WHOLE).mod.inspect_source("s")


def test_squares_of_bits_are_transposed() -> None:
    def body(x: v.Buffer, y: v.Buffer) -> None:
        rows = [v.bind(v.load(x, 4 * i, lanes=4)) for i in range(8)]
        for i, row in enumerate(transposed(rows)):
            v.store(y, row, 4 * i, lanes=4)

    profile = runnable(ARM)
    func = v.prim_func([("x", (32,), "uint32"), ("y", (32,), "uint32")], body)
    words = np.random.default_rng(0).integers(0, 2**32, 32, dtype=np.uint32)
    tensors = [tvm.runtime.tensor(array) for array in (words, np.zeros_like(words))]
    levels.compiled(func, profile)["main"](*tensors)
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    expected = (bits.T << np.arange(32, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    np.testing.assert_array_equal(tensors[1].numpy(), expected)


def test_tile_ends_within_the_padded_tokens() -> None:
    for target in LEVELS.values():
        for width in (1, 32, 33, 64, 65, 4096):
            spec, profile = replace(SUPERPOSED, v=Rows(1, 37, 1, width)), resolve(target)
            for found in (rule(spec, profile), *space(spec, profile)):
                assert 16 % found.rows == 0


def test_lists_serve_the_densities_of_trained_models() -> None:
    """Value masks up to 1 %, attention masks up to 0.5 %: lists; all masks half full: planes."""
    spec = AttentionValue(Rows(1, 198, 6, 64), Kind.SIGN, 3, 3, True, Compare(Kind.SIGN))
    for target in LEVELS.values():
        limit = limits(spec, resolve(target))
        assert 0.01 * 198 * 64 < limit.values < 198 * 64
        assert 0.005 * 198 * 198 < limit.attention < 198 * 198


@pytest.mark.timeout(120)
@pytest.mark.parametrize("tokens", [1, 4, 5, 6, 7, 8, 15])
def test_few_tokens_become_machine_code(tokens, tmp_path):
    """LLVM does not end where it knows which lanes of a count of bits are kept."""
    spec = AttentionValue(Rows(1, tokens, 1, 64), Kind.MASKED, 3, 3, True, Compare(Kind.MASKED))
    profile = resolve("llvm -mcpu=znver5")
    path = tmp_path / "kernel.o"
    levels.compiled(kernel(spec, profile), profile).mod.write_to_file(str(path), "o")
    assert path.stat().st_size
