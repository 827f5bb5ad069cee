"""The patch embedding against the oracle, on every level this machine runs."""

from functools import cache

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.families import kernel
from gsb_tvm.schedules.patches.tiles import chunk_rows, element_tiles, tiles, tiles_at_once
from gsb_tvm.targets import resolve
from tests.effort import examples
from tests.schedules.cuts import WHOLE, Cut
from tests.schedules.levels import ALL, compiled, profile_of, runnable, target_of

SHAPES = [
    Patches(1, 1, (4, 4), (2, 2), 2, lattice=False, bias=False),
    Patches(1, 1, (8, 8), (2, 2), 96, lattice=True, bias=True, position=True, prefix=2),
    Patches(2, 3, (7, 11), (2, 3), 5, lattice=True, bias=False, prefix=1),
    Patches(1, 3, (32, 48), (16, 16), 33, lattice=False, bias=True, position=True),
    Patches(3, 2, (9, 8), (3, 1), 31, lattice=True, bias=True),
    Patches(1, 1, (5, 40), (5, 1), 65, lattice=False, bias=False, position=True, prefix=3),
    Patches(2, 3, (64, 64), (16, 16), 64, lattice=True, bias=True, position=True, prefix=2),
]


@cache
def build(spec, level, cut):
    profile = profile_of(target_of(level))
    return compiled(cut(kernel(spec, profile)), profile)


def data(spec, rng, *, exact):
    """Small integers and halves, whose sums are exact in any order, or normal numbers."""
    arrays = []
    for name, shape, dtype in spec.inputs():
        if dtype == "int8":
            arrays.append(rng.integers(-8, 8, shape).astype(dtype))
        elif exact:
            low = 1 if name == "scale" else -4
            arrays.append((rng.integers(low, 5, shape) / 2).astype(dtype))
        else:
            arrays.append(rng.standard_normal(shape).astype(dtype))
    return arrays


def run(spec, level, cut, inputs):
    """The kernel's output, in a buffer that was full of NaN before."""
    (_, shape, dtype), *_ = spec.outputs()
    tensors = [tvm.runtime.tensor(array) for array in (*inputs, np.full(shape, np.nan, dtype))]
    build(spec, level, cut)["main"](*tensors)
    return tensors[-1].numpy()


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("cut", [WHOLE, Cut(3, backwards=True)], ids=["whole", "parts"])
@pytest.mark.parametrize("spec", SHAPES, ids=str)
def test_equals_the_oracle(spec, cut, level):
    runnable(target_of(level))
    inputs = data(spec, np.random.default_rng(0), exact=True)
    (expected,) = oracle.compute(spec, inputs)
    np.testing.assert_array_equal(run(spec, level, cut, inputs), expected)


@pytest.mark.parametrize("level", ALL)
def test_rounding_of_a_sum(level):
    """768 products: the error of sums in parts stays far below that of one long sum."""
    profile = runnable(target_of(level))
    spec = Patches(1, 3, (48, 48), (16, 16), 40, lattice=False, bias=True)
    inputs = data(spec, np.random.default_rng(1), exact=False)
    (expected,) = oracle.compute(spec, inputs)
    # sum |x w| is about 768 * 0.64 = 490; so many additions of 2**-24 each, at random signs.
    additions = 96 + 8 if profile.has_neon else 16 + 48
    np.testing.assert_allclose(
        run(spec, level, WHOLE, inputs), expected, rtol=0, atol=490 * additions**0.5 * 2**-24
    )


SPECS = st.builds(
    Patches,
    st.integers(1, 2),
    st.integers(1, 3),
    st.tuples(st.integers(4, 12), st.integers(4, 20)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(2, 70),
    *[st.booleans()] * 3,
    st.integers(0, 2),
)


@settings(max_examples=examples(10), deadline=None)
@given(SPECS)
def test_any_shape(spec):
    runnable("llvm -mcpu=haswell")
    inputs = data(spec, np.random.default_rng(2), exact=True)
    (expected,) = oracle.compute(spec, inputs)
    np.testing.assert_array_equal(run(spec, "haswell", WHOLE, inputs), expected)


def test_tiles_fit_the_registers():
    for level, registers in (("znver5", 32), ("haswell", 16), ("x86-64", 16)):
        profile = resolve(f"llvm -mcpu={level}")
        for width in range(1, 40):
            for columns in (2, 7, 16, 96, 384, 768):
                spec = Patches(1, 3, (16, 16 * width), (16, 16), columns, lattice=True, bias=True)
                tile = tiles(spec, profile)
                assert 1 <= tile.patches <= width
                assert tile.lanes <= columns
                assert tile.patches * tile.vectors + tile.vectors + 1 <= registers


def test_tiles_of_lanes_fit_the_registers():
    for across, down in ((1, 1), (2, 7), (14, 14), (24, 24)):
        for columns in (2, 7, 16, 96, 384, 768):
            image = 16 * down, 16 * across
            spec = Patches(1, 3, image, (16, 16), columns, lattice=True, bias=True)
            tile = element_tiles(spec)[0]
            assert 1 <= tile.patches <= across * down
            assert tile.lanes <= columns
            pixels = min(2, -(-tile.patches // 4))
            assert tile.patches * tile.vectors + tile.vectors + pixels < 32


def test_pixels_fit_the_cache():
    spec = Patches(1, 3, (224, 224), (16, 16), 384, lattice=True, bias=True)
    tile = element_tiles(spec)[0]
    for level in ("cortex-a53", "cortex-a72", "apple-m1"):
        profile = resolve(f"llvm -mtriple=aarch64-linux-gnu -mcpu={level}")
        count = tiles_at_once(spec, tile, profile)
        assert 1 < count
        assert count * tile.patches * 768 * 4 < profile.l2_bytes


@pytest.mark.parametrize(
    ("patch", "rows"), [((16, 16), 1), ((2, 2), 2), ((14, 14), 2), ((8, 8), 2), ((1, 128), 1)]
)
def test_chunks_divide_a_patch(patch, rows):
    image = patch[0] * 2, patch[1] * 2
    assert chunk_rows(Patches(1, 3, image, patch, 8, lattice=True, bias=True))[0] == rows
