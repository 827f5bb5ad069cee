"""Elementwise steps: rounding, functions as arithmetic, short axes, code that stays small."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf
from tvm import relax
from tvm.relax import op as R

from gsb_tvm.schedules.float import schedule
from gsb_tvm.targets.profile import Profile
from tests.schedules.float_functions import Graph, call, compiled, inputs, lowered, ones
from tests.schedules.levels import LEVELS, runnable


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Profile:
    return runnable(f"llvm -mcpu={request.param}")


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_steps_stay_rounded(level: Profile, shape: list[int], seed: int) -> None:
    """x * y + z in one kernel rounds twice, as in two: no fused multiply-add."""
    funcs = lowered(lambda x, y, z: R.add(R.multiply(x, y), z), shape, shape, shape)
    (func,) = funcs
    x, y, z = inputs(func, seed, exact=False)
    got = call(compiled(schedule(func, level), level), func, [x, y, z])
    np.testing.assert_array_equal(got, x * y + z)


@pytest.mark.parametrize(
    ("graph", "reference", "ulps"),
    [
        (R.exp, np.exp, 2),
        (R.erf, erf, 8),
        (R.tanh, np.tanh, 8),
        (R.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 4),
    ],
    ids=["exp", "erf", "tanh", "sigmoid"],
)
def test_functions(level: Profile, graph: Graph, reference: Graph, ulps: int) -> None:
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.8, -104.5, 1e-30, -1e-30, 1e30, -1e30]
    x = np.concatenate([np.linspace(-110, 95, 9001), np.linspace(-4, 4, 4001), special])
    x = x.astype(np.float32)
    (func,) = lowered(graph, x.shape)
    got = call(compiled(schedule(func, level), level), func, [x])
    with np.errstate(over="ignore"):
        want = reference(x.astype(np.float64))
        rounded = want.astype(np.float32)
        spacing = np.spacing(np.abs(rounded)).astype(np.float64)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    assert (np.abs(got[finite] - want[finite]) / spacing[finite]).max() <= ulps


def test_short_axes_are_walked_as_one(level: Profile) -> None:
    """Rows of 7 elements: vectors of 4 on their own, full ones where 49 are neighbours."""
    (func,) = lowered(lambda x, y: R.nn.relu(R.add(x, y)), (2, 5, 7, 7), (1, 5, 1, 1))
    library = compiled(schedule(func, level), level)
    register = {16: "zmm", 8: "ymm", 4: "xmm"}[level.lanes]
    lines = library.mod.inspect_source("s").splitlines()
    assert any("addps" in line and register in line for line in lines)
    x, y = inputs(func, 3, exact=True)
    np.testing.assert_array_equal(call(library, func, [x, y]), np.maximum(x + y, 0))


def _doubled(x: Any, times: int) -> Any:
    for _ in range(times):
        x = R.subtract(R.add(x, x), R.multiply(x, relax.const(np.float32(0.5))))
    return x


@pytest.mark.parametrize("shape", [(3, 20), (7, 96)])
def test_repeated_reads_do_not_grow_the_code(level: Profile, shape: tuple[int, int]) -> None:
    """A chain in which every step reads its input twice: 2**14 terms if all were inlined."""
    graph = (lambda x: _doubled(x, 14)) if shape[0] == 3 else (
        lambda x: _doubled(R.matmul(x, ones(96, 10)), 14)
    )  # fmt: skip
    (func,) = lowered(graph, shape)
    library = compiled(schedule(func, level), level)
    assert len(library.mod.inspect_source("s")) < 300_000
    data = inputs(func, 3, exact=True)
    want = call(compiled(func, level), func, data)
    np.testing.assert_allclose(call(library, func, data), want, rtol=1e-6)
