"""Patch embeddings on CUDA: exact in emulation, and multiply-adds that are rounded once."""

from dataclasses import replace

import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules import families
from gsb_tvm.schedules.patches.cuda import Parameters, kernel, rule
from gsb_tvm.targets import resolve
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES
from tests.schedules.cuda.kernels import ARCHS, check, compiled

SM_90 = resolve("cuda -arch=sm_90")
SMALL = Parameters(1, 1, 1, 1, 8, 64)
TILES = [SMALL, Parameters(1, 1, 2, 1, 4, 16), Parameters(2, 1, 2, 2, 1, 8)]


@pytest.mark.parametrize("tile", TILES, ids=str)
@pytest.mark.parametrize(
    "spec",
    [
        Patches(2, 3, (9, 14), (4, 4), 36, True, True, True, 2),
        Patches(3, 2, (8, 16), (8, 8), 64, False, True),
        Patches(1, 1, (15, 21), (5, 7), 33, True, False, True, 1),
        Patches(2, 3, (8, 10), (2, 2), 2, False, False),
        Patches(1, 3, (4, 4), (4, 4), 130, True, True),
    ],
    ids=str,
)
def test_agrees_with_the_oracle(spec, tile):
    check(spec, kernel(spec, SM_90, tile))


specs = st.builds(
    lambda batch, channels, grid, patch, rest, **options: Patches(
        batch,
        channels,
        (grid[0] * patch[0] + rest, grid[1] * patch[1] + rest),
        patch,
        **options,
    ),
    st.integers(1, 3),
    st.integers(1, 3),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 8), st.integers(1, 8)),
    st.integers(0, 1),
    columns=st.integers(2, 70),
    lattice=st.booleans(),
    bias=st.booleans(),
    position=st.booleans(),
    prefix=st.integers(0, 2),
)


@seed(0)
@settings(max_examples=5, deadline=None, database=None, phases=[Phase.generate])
@given(spec=specs, tile=st.sampled_from(TILES))
def test_any_shape(spec, tile):
    check(spec, kernel(spec, SM_90, tile))


DEIT_SMALL = Patches(1, 3, (224, 224), (16, 16), 384, True, True, True, 2)


@pytest.mark.parametrize(("batch", "lattice"), [(1, False), (2, True)])
def test_deit_small_by_rule(batch, lattice):
    spec = replace(DEIT_SMALL, batch=batch, lattice=lattice)
    check(spec, families.kernel(spec, SM_90))


def test_the_space_has_the_rule_and_fits():
    found = families.space(DEIT_SMALL, SM_90)
    assert found[0] == families.rule(DEIT_SMALL, SM_90)
    assert 30 <= len(found) <= 100
    for choice in found:
        assert Parameters(**choice).shared_bytes <= STATIC_SHARED_BYTES


@pytest.mark.parametrize("tile", [Parameters(4, 1, 2, 4, 1, 8), Parameters(4, 2, 2, 2, 1, 16)])
def test_large_tiles_of_the_space(tile):
    assert vars(tile) in families.space(DEIT_SMALL, SM_90)
    spec = Patches(2, 1, (24, 24), (3, 4), 132, True, True)
    check(spec, kernel(spec, SM_90, tile))
    compiled(kernel(replace(DEIT_SMALL, batch=256), SM_90, tile))


def test_the_largest_tile_that_fills_the_machine():
    assert Parameters(**families.rule(DEIT_SMALL, SM_90)) == SMALL
    assert families.rule(replace(DEIT_SMALL, batch=256), SM_90)["warp_rows"] == 2


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16, 256])
@pytest.mark.parametrize("arch", ARCHS)
def test_what_the_rule_takes_of_the_space_fits_into_a_block(arch, batch):
    spec = Patches(batch, 3, (224, 224), (16, 16), 384, True, True, True, 2)
    assert rule(spec, resolve(f"cuda -arch={arch}")).shared_bytes <= STATIC_SHARED_BYTES
