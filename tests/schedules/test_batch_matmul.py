"""The general packed product against its NumPy meaning, on every x86 level and on Arm."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, pack_rows
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules.batch_matmul.formula import passes
from gsb_tvm.schedules.batch_matmul.space import UNROLLED, fitted_rows, rule
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
WIDTHS = [1, 24, 31, 32, 33, 63, 64, 65, 127, 128, 992, 1000, 4096]
DRAWS = 8


@cache
def compiled(spec: BatchMatmul, target: str, cut: Cut = WHOLE) -> Any:
    profile = resolve(target)
    return levels.compiled(cut(kernel(spec, profile)), profile)


def plane(rng: np.random.Generator, kind: Kind, rows: Rows, zeros: bool) -> list[np.ndarray]:
    """A plane of random density, often empty or full; padding tokens hold anything."""

    def packed(density: float) -> np.ndarray:
        words = pack_rows(rng.random((rows.batch, rows.tokens, rows.features)) < density, rows)
        words[:, :, rows.tokens :] = rng.integers(
            0, 2**32, words[:, :, rows.tokens :].shape, dtype=np.uint32
        )
        return words

    tensors = [packed(rng.choice([0.0, 0.1, 0.5, 1.0]))]
    if kind is Kind.MASKED:
        nonzero = packed(rng.choice([0.0, 0.7, 0.96]) if zeros else 1.0)
        tensors += [nonzero, np.array([zeros], dtype=np.int32)]
    return tensors


def arguments(spec: BatchMatmul, rng: np.random.Generator, zeros: bool) -> list[np.ndarray]:
    tensors = []
    for rows, kinds in ((spec.a, spec.a_kinds), (spec.b, spec.b_kinds)):
        for kind in kinds:
            tensors += plane(rng, kind, rows, zeros)
    for kinds in (spec.a_kinds, spec.b_kinds):  # multiples of 1/2 up to 3: float sums are exact
        tensors.append(rng.integers(-6, 7, len(kinds)).astype(np.float32) / 2)
    return tensors


def check(
    spec: BatchMatmul, target: str, number: int, draws: int = DRAWS, cut: Cut = WHOLE
) -> None:
    rng = np.random.default_rng(number)
    for draw in range(draws):
        inputs = arguments(spec, rng, zeros=draw % 2 == 1)
        expected = oracle.compute(spec, inputs)[0]
        tensors = [tvm.runtime.tensor(x) for x in [*inputs, np.full_like(expected, np.nan)]]
        compiled(spec, target, cut)["main"](*tensors)
        np.testing.assert_array_equal(tensors[-1].numpy(), expected)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("a_kind", list(Kind))
@pytest.mark.parametrize("b_kind", list(Kind))
def test_every_pair_of_kinds(level: str, a_kind: Kind, b_kind: Kind) -> None:
    runnable(LEVELS[level])
    spec = BatchMatmul(Rows(2, 7, 2, 33), Rows(2, 19, 2, 33), (a_kind,), (b_kind,))
    check(spec, LEVELS[level], number=1)


@pytest.mark.parametrize("level", LEVELS)
def test_three_planes_on_both_sides(level: str) -> None:
    runnable(LEVELS[level])
    kinds = (Kind.SIGN, Kind.MASKED, Kind.MASK)
    check(BatchMatmul(Rows(1, 5, 1, 65), Rows(1, 35, 1, 65), kinds, kinds), LEVELS[level], number=2)


kinds_of = st.lists(st.sampled_from(Kind), min_size=1, max_size=2).map(tuple)


@st.composite
def specs(draw: st.DrawFn) -> BatchMatmul:
    batch, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    width = draw(st.sampled_from(WIDTHS))
    a, b = (Rows(batch, draw(st.integers(1, 70)), groups, width) for _ in range(2))
    return BatchMatmul(a, b, draw(kinds_of), draw(kinds_of))


@pytest.mark.parametrize("level", LEVELS)
def test_any_shape(level: str) -> None:
    runnable(LEVELS[level])

    @seed(20)
    @settings(max_examples=examples(13), deadline=None, database=None)
    @given(specs(), st.integers(0, 2**31), CUTS)
    def run(spec: BatchMatmul, number: int, cut: Cut) -> None:
        check(spec, LEVELS[level], number, cut=cut)

    run()


def test_compiles_to_byte_counts_on_arm() -> None:
    kinds = (Kind.SIGN, Kind.MASKED)
    spec = BatchMatmul(Rows(1, 9, 1, 64), Rows(1, 20, 1, 64), kinds, (Kind.MASK,))
    assembly = compiled(spec, ARM).mod.inspect_source("s")
    assert "cnt\tv" in assembly


def test_tile_never_exceeds_the_tokens() -> None:
    spec = BatchMatmul(Rows(1, 2, 1, 64), Rows(1, 17, 1, 64), (Kind.SIGN,), (Kind.SIGN,))
    tile = rule(spec, resolve(LEVELS["avx512-vpopcntdq"]))
    assert (tile.rows, tile.vectors) == (2, 2)


def test_many_planes_take_fewer_rows() -> None:
    kinds, rows = (Kind.MASKED, Kind.MASK), Rows(1, 198, 1, 64)
    spec = BatchMatmul(rows, rows, kinds, kinds)
    tile = rule(spec, resolve(LEVELS["avx512-vpopcntdq"]))
    one, all_of = (fitted_rows(tile, count) for count in (1, passes(spec, masked=True)))
    assert passes(spec, masked=True) == 7
    assert all_of * tile.vectors * 7 <= UNROLLED < one * tile.vectors * 7
