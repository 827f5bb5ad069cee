"""Copies of images: what a kernel makes of them is copies of what it makes of one."""

import numpy as np
import pytest

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.specs import decode, encode
from gsb_tvm.tuning.samples import disagreement, sample
from tests.gpu.cases import awkward, deit_small, spread
from tests.gpu.widening import times, widened


@pytest.mark.parametrize("name", awkward())
@pytest.mark.parametrize("zeros", [False, True])
def test_the_oracle_agrees(name, zeros):
    drawn = awkward()[name]
    spec = times(drawn, 3)
    wide = widened(sample(drawn, np.random.default_rng(0), zeros=zeros), drawn, spec)
    assert [array.shape for array in wide.inputs] == [shape for _, shape, _ in spec.inputs()]
    assert not disagreement(wide, oracle.compute(spec, wide.inputs))


def test_batches_of_deit_small():
    specs = {name: times(spec, 64) for name, spec in deit_small().items()}
    assert specs["fc1"].rows.batch == specs["fc1"].thresholds.rows.batch == 64
    assert specs["scores"].a.batch == 6 * 64
    assert specs["patches"].batch == 64
    assert all(decode(encode(spec)) == spec for spec in specs.values())


def test_some_of_a_space():
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread(range(10), 4) == [0, 3, 6, 9]
    assert spread(range(10), 1) == [0]
    assert spread(range(10), 0) == []
