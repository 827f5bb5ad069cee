"""Value planes against the oracle, bit for bit, on every level this machine runs."""

from functools import cache

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules.families import kernel
from gsb_tvm.targets import resolve
from tests.effort import examples
from tests.schedules.cuts import CUTS
from tests.schedules.levels import ALL, compiled, profile_of, runnable, target_of

SHAPES = [
    Rows(1, 1, 1, 1),
    Rows(2, 3, 1, 7),
    Rows(1, 5, 3, 8),
    Rows(1, 4, 1, 31),
    Rows(2, 2, 2, 24),
    Rows(1, 17, 1, 32),
    Rows(1, 3, 1, 33),
    Rows(1, 70, 2, 63),
    Rows(2, 21, 3, 64),
    Rows(1, 9, 1, 65),
    Rows(1, 33, 5, 24),
    Rows(1, 2, 1, 127),
    Rows(1, 6, 2, 128),
    Rows(1, 2, 1, 4096),
]


@cache
def build(spec, level, cut):
    profile = profile_of(target_of(level))
    return compiled(cut(kernel(spec, profile)), profile)


def run(spec, level, cut, inputs):
    """Outputs of the kernel, each in a buffer that was full of ones before."""
    outputs = [
        np.full(shape, -1, dtype="int64").astype(dtype) for _, shape, dtype in spec.outputs()
    ]
    tensors = [tvm.runtime.tensor(array) for array in (*inputs, *outputs)]
    build(spec, level, cut)["main"](*tensors)
    return [tensor.numpy() for tensor in tensors[len(inputs) :]]


def check(spec, level, cut, inputs):
    expected = oracle.compute(spec, inputs)
    for (name, _, _), got, want in zip(
        spec.outputs(), run(spec, level, cut, inputs), expected, strict=True
    ):
        tokens = spec.rows.tokens if name != "out_zeros" else None
        np.testing.assert_array_equal(got[..., :tokens], want[..., :tokens], err_msg=name)


def values(rng, shape, style):
    """Float data: smooth, on a coarse grid with many ties and zeros, of one sign, or constant."""
    if style == "normal":
        return rng.standard_normal(shape, dtype=np.float32)
    grid = rng.integers(-4, 5, shape).astype(np.float32) / 4
    return {
        "grid": grid,
        "positive": np.abs(grid) + np.float32(0.25),
        "negative": -np.abs(grid) - np.float32(0.25),
        "zero": grid * 0,
        "few": np.where(rng.random(shape) < 0.02, grid * 2.0**-70, rng.standard_normal(shape)),
        "odd": np.where(grid > 0.9, np.float32(-0.0), np.where(grid < -0.9, np.inf, grid)),
    }[style].astype(np.float32)


def inputs_of(rng, spec, style):
    """x and shift; only one of them holds infinities, so that their sum is a number."""
    inputs = [values(rng, shape, style) for _, shape, _ in spec.inputs()]
    if style == "odd" and spec.shift:
        inputs[1] = values(rng, inputs[1].shape, "grid")
    return inputs


STYLES = ("normal", "grid", "positive", "negative", "zero", "odd", "few")
SPECS = st.builds(
    ValuePlanes,
    rows=st.sampled_from(SHAPES),
    kind=st.sampled_from([Kind.SIGN, Kind.MASKED]),
    shift=st.booleans(),
    ratios=st.sampled_from([(0.7,), (0.7, 0.9), (0.25, 0.5, 1.0)]),
)


def check_styles(level, spec, cut, seed):
    runnable(target_of(level))
    rng = np.random.default_rng(seed)
    for style in STYLES:
        check(spec, level, cut, inputs_of(rng, spec, style))


@pytest.mark.parametrize("level", ALL)
@settings(max_examples=examples(20), deadline=None, derandomize=True)
@given(spec=SPECS, cut=CUTS, seed=st.integers(0, 2**31))
def test_equals_oracle(level, spec, cut, seed):
    check_styles(level, spec, cut, seed)


def test_compiles_for_arm():
    profile = resolve("llvm -mcpu=cortex-a72 -mtriple=aarch64-linux-gnu")
    spec = ValuePlanes(Rows(1, 33, 5, 24), Kind.MASKED, True, (0.7, 0.9))
    module = compiled(kernel(spec, profile), profile)
    assert "fcmgt" in module.mod.inspect_source("asm")


@pytest.mark.parametrize(("kind", "ratios"), [(Kind.SIGN, ()), (Kind.MASK, (0.7,))])
def test_rejects(kind, ratios):
    with pytest.raises(ModelError, match="value planes"):
        kernel(ValuePlanes(Rows(1, 4, 1, 32), kind, False, ratios), resolve("llvm -mcpu=haswell"))
