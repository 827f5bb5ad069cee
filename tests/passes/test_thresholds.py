"""Pulled-back thresholds split the floats exactly where the chain of steps passes its bound."""

from functools import partial

import numpy as np
import pytest
from hypothesis import example, given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.passes.thresholds import pull_back

INF = np.float32(np.inf)
LARGEST = np.finfo(np.float32).max
finite = st.floats(-(2.0**100), 2.0**100, width=32)
positive = st.floats(2.0**-60, 2.0**60, width=32)
steps = st.one_of(
    st.tuples(st.sampled_from([np.add, np.subtract]), finite),
    st.tuples(st.sampled_from([np.multiply, np.divide]), positive),
)
SAMPLES = np.array([0, 1e-45, 1e-38, 0.25, 0.5, 1, 1.5, 2.5, 100, 2**24, 1e20, LARGEST], np.float32)


def run(chain, x):
    x = np.asarray(x, np.float32)
    with np.errstate(over="ignore"):
        for step, value in chain:
            x = step(x, np.float32(value)).astype(np.float32)
    return x


def functions(chain):
    return [partial(_flipped, step, np.float32(value)) for step, value in chain]


def _flipped(step, value, x):
    return step(x, value)


def check(chain, bound, strict):
    t = pull_back(functions(chain), bound, strict=strict)
    assert isinstance(t, np.float32)
    with np.errstate(over="ignore"):  # the neighbour of the largest float is infinite
        near = [t, np.nextafter(t, INF, dtype=np.float32), np.nextafter(t, -INF, dtype=np.float32)]
    x = np.concatenate([np.array(near, np.float32), SAMPLES, -SAMPLES])
    x = x[np.isfinite(x)]
    y = run(chain, x)
    passes = y > np.float32(bound) if strict else y >= np.float32(bound)
    np.testing.assert_array_equal(x > t, passes)


@seed(0)
@settings(max_examples=200, deadline=None, database=None)
@given(
    chain=st.lists(steps, max_size=4), bound=st.floats(-100, 100, width=32), strict=st.booleans()
)
@example(chain=[(np.add, 1.0), (np.divide, 2.0)], bound=0.5, strict=True)
@example(chain=[(np.multiply, 2.0**-60)] * 3, bound=0.0, strict=True)  # the product underflows
@example(chain=[(np.multiply, 2.0**60)] * 3, bound=1.0, strict=False)  # the product overflows
@example(chain=[(np.subtract, 1e30)], bound=0.0, strict=False)  # the sum swallows small inputs
def test_every_float_lies_on_the_side_that_the_chain_says(chain, bound, strict):
    check(chain, bound, strict)


@pytest.mark.parametrize(
    ("bound", "strict", "expected"),
    [
        (0.5, True, 0.5),
        (0.5, False, np.nextafter(np.float32(0.5), -INF)),
        (0.0, False, -1e-45),
        (-0.0, True, 0.0),
        (LARGEST, True, LARGEST),
        (-np.inf, False, -np.inf),
    ],
)
def test_without_steps_the_bound_is_its_own_threshold(bound, strict, expected):
    assert pull_back([], bound, strict=strict) == np.float32(expected)


def test_everything_passes_or_nothing_does():
    clamp = [lambda x: np.clip(x, np.float32(0), np.float32(1))]
    assert pull_back(clamp, -1.0, strict=True) == -np.inf
    assert pull_back(clamp, 2.0, strict=True) == LARGEST


def test_rounding_half_to_even_is_seen_through_a_scale():
    """Level 1 of round(x / a) begins above a / 2, level 2 at 1.5 a; a is not a power of two."""
    a = np.float32(0.3)
    x = np.linspace(0, 1, 20001, dtype=np.float32)
    divide = [lambda value: value / a]
    for level in (1, 2, 3):
        t = pull_back(divide, level - 0.5, strict=level % 2 == 1)
        np.testing.assert_array_equal(x > t, np.rint(x / a) >= level)
