"""GSB's nested planes of attention on CUDA."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import AttentionPlanes, Kind
from gsb_tvm.schedules import families
from gsb_tvm.schedules.attention_planes.cuda import Parameters, kernel
from gsb_tvm.schedules.cuda.tile import Method
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.samples import sample
from tests.effort import every
from tests.schedules.cuda.emulator import Emulated, Way, outputs
from tests.schedules.cuda.kernels import (
    check,
    check_inputs,
    compiled,
    lowered,
)

SM_90 = resolve("cuda -arch=sm_90")


def spec_of(
    q, query=Kind.SIGN, key=Kind.SIGN, factors=2, bias=True, strict=True, ratios=(0.7, 0.9)
):
    return AttentionPlanes(q, query, key, factors, True, 64, bias, strict, ratios)


def drawn(spec, **changed):
    """Inputs of a sample, those of a name changed by a function of them."""
    inputs = sample(spec, np.random.default_rng(0), zeros=False).inputs
    names = [name for name, _, _ in spec.inputs()]
    return [changed.get(n, np.array)(x) for n, x in zip(names, inputs, strict=True)]


KINDS = [
    (Kind.SIGN, Kind.SIGN),
    (Kind.MASKED, Kind.SIGN),
    (Kind.MASKED, Kind.MASKED),
    (Kind.MASK, Kind.MASKED),
    (Kind.SIGN, Kind.MASK),
]


# Each fourth: all kinds and all methods are among them, with rows held and not.
@pytest.mark.parametrize(
    ("query", "key", "method", "held"),
    every(4, [(*kinds, method, held) for held in (0, 1) for kinds in KINDS for method in Method]),
)
def test_agrees_with_the_oracle(query, key, method, held):
    factors = 1 + held
    spec = spec_of(Rows(2, 37, 2, 41), query, key, factors, bool(held), method is Method.TENSOR)
    check(spec, kernel(spec, SM_90, Parameters(2, method, held)))


@given(
    st.builds(Rows, st.integers(1, 2), st.integers(1, 70), st.integers(1, 3), st.integers(1, 300)),
    st.sampled_from(Kind),
    st.lists(st.sampled_from([0.25, 0.7, 1.0]), max_size=3),
)
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)
def test_any_shape_by_rule(q, kind, ratios):
    spec = spec_of(q, kind, Kind.SIGN, ratios=tuple(ratios))
    check(spec, families.kernel(spec, SM_90))


@pytest.mark.parametrize("tokens", [1, 8])
def test_few_tokens(tokens):
    spec = spec_of(Rows(2, tokens, 2, 41))
    func = families.kernel(spec, SM_90)
    check(spec, func)
    compiled(func)


@pytest.mark.parametrize("strict", [True, False])
def test_base_at_its_bound(strict):
    """The softmax of one key is 1, whatever is rounded."""
    spec = spec_of(Rows(1, 1, 2, 32), bias=False, strict=strict, ratios=())
    inputs = drawn(spec, scalars=lambda scalars: np.float32([*scalars[:2], 1]))
    kernels = lowered(families.kernel(spec, SM_90))
    shapes = [np.zeros(shape, dtype) for _, shape, dtype in spec.outputs()]
    (masks,) = outputs(kernels, "kernel", Emulated(kernels.source), inputs, shapes, Way())
    assert (masks[0, 0, :, 0] == (0 if strict else 1)).all()


@pytest.mark.parametrize("held", [0, 1])
def test_ratios_in_any_order_of_a_negative_maximum(held):
    spec = spec_of(Rows(2, 37, 2, 41), ratios=(0.9, 1.5, 0.5, 1.0))
    inputs = drawn(spec, bias=lambda bias: bias - np.float32(5))
    check_inputs(spec, kernel(spec, SM_90, Parameters(2, Method.TENSOR, held)), [inputs])


@pytest.mark.parametrize("held", [0, 1])
def test_nothing_is_above_a_share_of_nan(held):
    spec = spec_of(Rows(1, 37, 2, 41))

    def with_nan(bias):
        return np.where(np.arange(bias.size) == 7, np.float32(np.nan), bias)

    inputs = drawn(spec, bias=with_nan)
    check_inputs(spec, kernel(spec, SM_90, Parameters(2, Method.TENSOR, held)), [inputs])


def test_long_rows():
    spec = spec_of(Rows(1, 300, 1, 32))
    check(spec, families.kernel(spec, SM_90))


@pytest.mark.parametrize("batch", [1, 2])
def test_deit_small_by_rule(batch):
    spec = spec_of(Rows(batch, 198, 6, 64))
    check(spec, families.kernel(spec, SM_90))
    found = families.space(spec, SM_90)
    assert found[0] == families.rule(spec, SM_90)
    assert 6 <= len(found) <= 100
