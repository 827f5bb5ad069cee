"""Norm, shift, comparison and packing on CUDA."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, unpack_rows
from gsb_tvm.dialect.specs import Binarize, Compare, Kind
from gsb_tvm.schedules import families
from gsb_tvm.schedules.binarize.cuda import Parameters, kernel
from gsb_tvm.schedules.cuda.token_rows import HELD
from gsb_tvm.targets import resolve
from tests.schedules.cuda.emulator import Emulated, outputs
from tests.schedules.cuda.kernels import check, lowered

SM_90 = resolve("cuda -arch=sm_90")
EPS = 9.999999960041972e-13


def spec_of(rows, kind=Kind.MASKED, norm=True, shift=True, strict=True):
    return Binarize(rows, Compare(kind, 0.0, strict), norm, shift, EPS)


PARAMETERS = [Parameters(16, 8), Parameters(4, 4), Parameters(8, 4, 2), Parameters(16, 4, 4)]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize(
    ("kind", "norm"),
    [(Kind.MASKED, True), (Kind.MASKED, False), (Kind.SIGN, True), (Kind.MASK, False)],
)
def test_agrees_with_the_oracle(kind, norm, parameters):
    spec = spec_of(Rows(2, 21, 3, 40), kind, norm, not norm, kind is not Kind.MASK)
    check(spec, kernel(spec, SM_90, parameters))


@pytest.mark.parametrize(
    ("width", "parts"), [(1, 1), (31, 1), (32, 2), (32 * HELD, 1), (32 * HELD + 5, 1), (5000, 2)]
)
def test_every_length_of_rows(width, parts):
    spec = spec_of(Rows(1, 3, 1, width))
    check(spec, kernel(spec, SM_90, Parameters(4, 2, parts)))


# Deviations beyond those that a reciprocal divides by, and rows that have none. Sums are float32:
# what is too large for them in squares is no row.
@pytest.mark.parametrize(("width", "large"), [(40, 2.0**61), (32 * HELD + 5, 2.0**58)])
def test_numbers_of_every_size(width, large):
    factors = [1.0, 2.0**-62, 2.0**-80, 0.0, large, 2.0**70, np.inf, np.nan]
    extremes = [np.inf, -np.inf, np.nan, 2.0**100, 2.0**-140]
    rows = Rows(1, len(factors) + len(extremes), 1, width)
    spec = Binarize(rows, Compare(Kind.MASKED, 0.0, True), True, True, 0.0)
    half = np.ones((rows.tokens, width // 2), np.float32)
    middle = np.zeros((rows.tokens, width % 2), np.float32)
    rng = np.random.default_rng(0)
    x = rng.permuted(np.concatenate([half, middle, -half], axis=1), axis=1)[None]
    with np.errstate(all="ignore"):
        x[0, : len(factors)] *= np.array(factors, np.float32)[:, None]
        x[0, len(factors) :, 0] = extremes
        inputs = [x, *rng.integers(-2, 3, (3, width)).astype(np.float32)]
        wanted = oracle.compute(spec, inputs)
    kernels = lowered(families.kernel(spec, SM_90))
    got = outputs(kernels, "kernel", Emulated(kernels.source), inputs, wanted)
    for mine, theirs in zip(got[:2], wanted[:2], strict=True):
        assert np.array_equal(unpack_rows(mine, rows), unpack_rows(theirs, rows))
    assert got[2] == wanted[2]


@given(
    st.builds(Rows, st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 70)),
    st.sampled_from(Kind),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_shape_by_rule(rows, kind, norm, shift):
    spec = spec_of(rows, kind, norm, shift)
    check(spec, families.kernel(spec, SM_90))


def test_deit_small_by_rule():
    for batch in (1, 2):
        spec = spec_of(Rows(batch, 198, 1, 384))
        check(spec, families.kernel(spec, SM_90))


def test_the_space_has_the_rule():
    spec = spec_of(Rows(1, 198, 1, 384))
    found = families.space(spec, SM_90)
    assert found[0] == families.rule(spec, SM_90) == {"tokens": 1, "warps": 1, "parts": 1}
    assert 6 <= len(found) <= 100
    many = spec_of(Rows(256, 198, 1, 384))
    assert families.rule(many, SM_90) == {"tokens": 32, "warps": 8, "parts": 1}
    wide = spec_of(Rows(1, 197, 1, 3072))
    assert families.rule(wide, SM_90) == {"tokens": 1, "warps": 8, "parts": 8}
