"""Products of superposed tensors on CUDA: exact in emulation, and what they become."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules import families
from gsb_tvm.schedules.batch_matmul.cuda import blocks, kernel, rule
from gsb_tvm.schedules.cuda.tile import Method, Shape
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.samples import sample
from tests.schedules.cuda.emulator import WAYS
from tests.schedules.cuda.kernels import check_inputs
from tests.schedules.test_batch_matmul import arguments

SM_90 = resolve("cuda -arch=sm_90")
SMALL, LARGE = Shape(32, 32, 1, 4, 4, 2), Shape(64, 64, 2, 2, 8, 3)


def draws(spec, number=1, count=3):
    rng = np.random.default_rng(number)
    for draw in range(count):
        yield arguments(spec, rng, zeros=draw % 2 == 0)


@pytest.mark.parametrize("a_kind", Kind)
@pytest.mark.parametrize("b_kind", Kind)
def test_every_pair_of_kinds(a_kind, b_kind):
    spec = BatchMatmul(Rows(2, 21, 2, 70), Rows(2, 35, 2, 70), (a_kind,), (b_kind,))
    check_inputs(spec, kernel(spec, SM_90, SMALL), draws(spec, count=2))


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize(("shape", "tokens"), [(SMALL, 34), (LARGE, 70)], ids=str)
def test_superposed_on_both_sides(shape, tokens, method):
    kinds = (Kind.MASKED,), (Kind.SIGN, Kind.MASKED)
    spec = BatchMatmul(Rows(1, 37, 1, 300), Rows(1, tokens, 1, 300), *kinds)
    check_inputs(spec, kernel(spec, SM_90, replace(shape, method=method)), draws(spec))


@seed(1)
@settings(max_examples=3, deadline=None, database=None)
@given(data=st.data())
def test_any_shape(data):
    draw = data.draw
    batch, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    width, tokens = draw(st.integers(1, 140)), st.integers(1, 70)
    kinds = st.lists(st.sampled_from(Kind), min_size=1, max_size=2).map(tuple)
    a, b = (Rows(batch, draw(tokens), groups, width) for _ in range(2))
    spec = BatchMatmul(a, b, draw(kinds), draw(kinds))
    chosen = draw(st.sampled_from([c for c in families.space(spec, SM_90) if c["rows"] < 64]))
    check_inputs(spec, families.kernel(spec, SM_90, chosen), draws(spec, 2, count=2))


def scores(batch):
    """What scores of six heads of DeiT-Small would be, a head being an image."""
    rows = Rows(6 * batch, 198, 1, 64)
    return BatchMatmul(rows, rows, (Kind.MASKED,), (Kind.MASKED, Kind.MASK))


@pytest.mark.parametrize("arch", ["sm_90", "sm_120"])
def test_scores_of_deit_small_by_rule(arch):
    spec = scores(1)
    inputs = sample(spec, np.random.default_rng(4), zeros=True).inputs
    check_inputs(spec, families.kernel(spec, resolve(f"cuda -arch={arch}")), [inputs], WAYS[2:])


def test_the_space_has_the_rule_and_fits():
    for spec in (scores(1), scores(256)):
        found = families.space(spec, SM_90)
        assert found[0] == families.rule(spec, SM_90)
        assert 6 <= len(found) <= 100


def test_the_largest_tile_that_fills_the_machine():
    assert rule(scores(256), SM_90).rows == 128
    assert rule(scores(1), SM_90).rows == 32
    assert blocks(scores(1), rule(scores(1), SM_90)) >= 132
