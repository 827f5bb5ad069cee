"""Norm, shift, comparison and packing on CUDA."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Binarize, Compare, Kind
from gsb_tvm.schedules import families
from gsb_tvm.schedules.binarize.cuda import Parameters, kernel
from gsb_tvm.schedules.cuda.token_rows import HELD
from gsb_tvm.targets import resolve
from tests.schedules.cuda.kernels import ARCHS, check, compiled
from tests.schedules.cuda.sass import instructions

SM_90 = resolve("cuda -arch=sm_90")
EPS = 9.999999960041972e-13


def spec_of(rows, kind=Kind.MASKED, norm=True, shift=True, strict=True):
    return Binarize(rows, Compare(kind, 0.0, strict), norm, shift, EPS)


@pytest.mark.parametrize("parameters", [Parameters(16, 8), Parameters(4, 4), Parameters(8, 3)])
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("norm", [True, False])
def test_agrees_with_the_oracle(kind, norm, parameters):
    spec = spec_of(Rows(2, 21, 3, 40), kind, norm, not norm, kind is not Kind.MASK)
    check(spec, kernel(spec, SM_90, parameters))


@pytest.mark.parametrize("width", [1, 31, 32, 32 * HELD, 32 * HELD + 5])
def test_every_length_of_rows(width):
    spec = spec_of(Rows(1, 3, 1, width))
    check(spec, kernel(spec, SM_90, Parameters(4, 2)))


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


@pytest.mark.parametrize("batch", [1, 256])
@pytest.mark.parametrize("arch", ARCHS)
def test_compiled_by_rule(arch, batch):
    spec = spec_of(Rows(batch, 198, 1, 384))
    code = compiled(families.kernel(spec, resolve(f"cuda -arch={arch}")), arch)
    assert instructions(code.cubin)["VOTE"] + instructions(code.cubin)["VOTEU"]


def test_deit_small_by_rule():
    for batch in (1, 2):
        spec = spec_of(Rows(batch, 198, 1, 384))
        check(spec, families.kernel(spec, SM_90))


def test_the_space_has_the_rule():
    spec = spec_of(Rows(1, 198, 1, 384))
    found = families.space(spec, SM_90)
    assert found[0] == families.rule(spec, SM_90) == {"tokens": 1, "warps": 1}
    assert 6 <= len(found) <= 100
    many = spec_of(Rows(256, 198, 1, 384))
    assert families.rule(many, SM_90) == {"tokens": 32, "warps": 8}
