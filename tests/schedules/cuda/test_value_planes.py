"""GSB's nested planes of values on CUDA."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, unpack_rows
from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules import families
from gsb_tvm.schedules.cuda.token_rows import Parameters
from gsb_tvm.schedules.value_planes.cuda import kernel
from gsb_tvm.targets import resolve
from tests.schedules.cuda.emulator import Emulated, outputs
from tests.schedules.cuda.kernels import check, lowered

SM_90 = resolve("cuda -arch=sm_90")
RATIOS = (0.7, 0.9)


PARAMETERS = [Parameters(16, 8), Parameters(2, 1), Parameters(4, 4, 2)]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
@pytest.mark.parametrize("kind", Kind)
def test_agrees_with_the_oracle(kind, parameters):
    spec = ValuePlanes(Rows(2, 21, 3, 40), kind, kind is not Kind.SIGN, RATIOS)
    check(spec, kernel(spec, SM_90, parameters))


@given(
    st.builds(Rows, st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.integers(1, 70)),
    st.sampled_from(Kind),
    st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.7, 1.0, 1.5]), min_size=1, max_size=3),
)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_shape_by_rule(rows, kind, ratios):
    spec = ValuePlanes(rows, kind, True, tuple(ratios))
    check(spec, families.kernel(spec, SM_90))


@pytest.mark.parametrize("extreme", [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, -1e-40])
def test_extremes_of_every_sign_and_size(extreme):
    rows = Rows(1, 5, 1, 33)
    spec = ValuePlanes(rows, Kind.MASKED, False, (*RATIOS, 0.0))
    kernels = lowered(families.kernel(spec, SM_90))
    emulated = Emulated(kernels.source)
    for base in (-3.0, 0.0, 2.0):
        x = np.full((1, 5, 33), base, np.float32)
        x[0, 2, 17] = extreme
        with np.errstate(invalid="ignore"):
            wanted = oracle.compute(spec, [x])
        got = outputs(kernels, "kernel", emulated, [x], wanted)
        for mine, theirs in zip([*got[:2], *got[3]], [*wanted[:2], *wanted[3]], strict=True):
            assert np.array_equal(unpack_rows(mine, rows), unpack_rows(theirs, rows))
        assert got[2] == wanted[2]


def test_deit_small_by_rule():
    for batch in (1, 2):
        spec = ValuePlanes(Rows(batch, 198, 6, 64), Kind.MASKED, False, RATIOS)
        check(spec, families.kernel(spec, SM_90))
        found = families.space(spec, SM_90)
        assert found[0] == families.rule(spec, SM_90)
        assert 6 <= len(found) <= 100
