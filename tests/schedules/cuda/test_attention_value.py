"""Attention times values on CUDA: exact in emulation, and the instructions it shall become."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import AttentionValue, Compare, Kind
from gsb_tvm.schedules import families
from gsb_tvm.schedules.attention_value import cuda_tensor, cuda_values
from gsb_tvm.schedules.attention_value.cuda import Parameters, _sizes, blocks, kernel, rule
from gsb_tvm.schedules.attention_value.cuda_values import Where
from gsb_tvm.schedules.cuda.tile import Method
from gsb_tvm.targets import resolve
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES
from gsb_tvm.tuning.samples import sample
from tests.effort import every
from tests.schedules.cuda.emulator import WAYS
from tests.schedules.cuda.kernels import check_inputs, compiled
from tests.schedules.test_attention_value import COMPARES, DENSITIES, arguments

SM_90 = resolve("cuda -arch=sm_90")
SUPERPOSED = AttentionValue(Rows(2, 37, 2, 24), Kind.MASKED, 3, 3, True, Compare(Kind.MASKED))
CASES = [
    (SUPERPOSED, Parameters(1, 2, 1)),
    (SUPERPOSED, Parameters(2, 1, 1, Where.GLOBAL)),
    (replace(SUPERPOSED, p_groups=1), Parameters(2, 1, 1, sparse=False)),
    (replace(SUPERPOSED, v=Rows(1, 70, 2, 64), value_kind=Kind.SIGN), Parameters(2, 3, 2)),
    (
        AttentionValue(Rows(1, 33, 2, 96), Kind.MASKED, 2, 1, True, Compare(Kind.SIGN)),
        Parameters(1, 1, 3),
    ),
    (
        AttentionValue(Rows(2, 5, 1, 70), Kind.SIGN, 2, 2, False, Compare(Kind.MASK, 0.5)),
        Parameters(1, 2, 1, Where.GLOBAL),
    ),
    (AttentionValue(Rows(1, 300, 1, 31), Kind.SIGN, 1, 3, True, None), Parameters(2, 8, 1)),
    (AttentionValue(Rows(3, 1, 2, 8), Kind.MASKED, 1, 1, False, None), Parameters(1, 1, 1)),
    (
        AttentionValue(Rows(1, 130, 1, 32), Kind.SIGN, 1, 1, True, Compare(Kind.MASKED)),
        Parameters(2, 2, 1),
    ),
]


def draws(spec, number=1, densities=DENSITIES):
    rng = np.random.default_rng(number)
    for i, density in enumerate(densities):
        yield arguments(spec, rng, density, zeros=i % 2 == 0)


@pytest.mark.parametrize(
    ("spec", "chosen", "method"),
    every(2, [(*case, method) for case in CASES for method in Method]),
    ids=str,
)
def test_agrees_with_the_oracle(spec, chosen, method):
    few = DENSITIES[1::2] if spec.v.tokens < 100 else DENSITIES[3:4]
    check_inputs(
        spec, kernel(spec, SM_90, replace(chosen, method=method)), draws(spec, densities=few)
    )


@pytest.mark.parametrize("tokens", [37, 290])
def test_attention_that_registers_do_not_hold(tokens, monkeypatch):
    monkeypatch.setattr(cuda_tensor, "HELD", 0)
    spec = replace(SUPERPOSED, v=Rows(1, tokens, 1, 8), p_groups=2)
    check_inputs(spec, kernel(spec, SM_90, Parameters(1, 4, 1)), draws(spec, 2, DENSITIES[3:5]))


@pytest.mark.parametrize("method", Method)
def test_no_number_is_a_zero(method):
    (inputs,) = draws(SUPERPOSED, densities=DENSITIES[:1])
    inputs[-1][::3] = np.nan
    check_inputs(
        SUPERPOSED, kernel(SUPERPOSED, SM_90, Parameters(1, 2, 1, method=method)), [inputs]
    )


@seed(1)
@settings(max_examples=5, deadline=None, database=None)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    groups, most = st.integers(1, 3), st.integers(1, 2)
    rows = Rows(draw(most), draw(st.integers(1, 70)), draw(most), draw(st.integers(1, 100)))
    kind, compare = draw(st.sampled_from([Kind.SIGN, Kind.MASKED])), draw(st.sampled_from(COMPARES))
    spec = AttentionValue(rows, kind, draw(groups), draw(groups), draw(st.booleans()), compare)
    chosen = draw(st.sampled_from(families.space(spec, SM_90)))
    check_inputs(spec, families.kernel(spec, SM_90, chosen), draws(spec, 3, DENSITIES[3:5]))


def layer(batch, kind=Kind.MASKED, tokens=198):
    return AttentionValue(Rows(batch, tokens, 6, 64), kind, 3, 3, True, Compare(kind))


@pytest.mark.parametrize(("arch", "batch"), [("sm_90", 2), ("sm_120", 1)])
def test_deit_small_by_rule(arch, batch):
    spec = layer(batch)
    inputs = sample(spec, np.random.default_rng(4), zeros=True).inputs
    check_inputs(spec, families.kernel(spec, resolve(f"cuda -arch={arch}")), [inputs], WAYS[2:])


def test_the_largest_block_that_fills_the_machine():
    assert blocks(layer(1), rule(layer(1), SM_90)) == 48
    assert rule(layer(256), SM_90) == Parameters(1, 13, 2)


def test_the_space_has_the_rule_and_fits():
    for spec in (
        layer(1),
        layer(256),
        layer(2, tokens=1030),
        replace(layer(1), v=Rows(1, 9, 1, 3)),
    ):
        found = families.space(spec, SM_90)
        assert found[0] == families.rule(spec, SM_90)
        assert 6 <= len(found) <= 150
        for choice in found:
            if choice["where"] == "shared":
                taken = cuda_values.shared_bytes(spec, choice["words"])
                assert taken <= STATIC_SHARED_BYTES


def test_many_tokens_are_turned_in_global_memory():
    spec = layer(1, tokens=4000)
    assert {each.where for each in _sizes(spec, ((1, 4),))} == {Where.GLOBAL}
    assert rule(spec, SM_90).where is Where.GLOBAL
    compiled(families.kernel(spec, SM_90))
