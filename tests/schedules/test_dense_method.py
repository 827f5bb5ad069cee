"""Which dense layers go by tile products, and how many of them a kernel executes."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tvm
from tvm import s_tir
from tvm.ir import IRModule

from gsb_tvm.dialect.bits import Rows, words
from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense import Method, kernel, method
from gsb_tvm.schedules.dense.parameters import usual
from gsb_tvm.schedules.dense.tiles import amx_steps, count_cycles, tile_cycles, tiles
from gsb_tvm.targets import Profile
from tests import amx
from tests.amx import Kind as Instruction
from tests.schedules import levels
from tests.schedules.cuts import Cut
from tests.schedules.levels import profile_of
from tests.schedules.test_dense import Compiled, arguments, make_spec

WITH_AMX = profile_of("llvm -mtriple=x86_64-linux-gnu -mcpu=sapphirerapids")
WITHOUT = ("znver5", "skylake-avx512", "haswell", "x86-64", "cortex-a72")


def layer(
    tokens: int, features: int, columns: int, kinds: tuple[Kind, Kind] = (Kind.SIGN, Kind.SIGN)
) -> Dense:
    return Dense(Rows(1, tokens, 1, features), *kinds, columns, 64)


@pytest.mark.parametrize(
    ("tokens", "features", "columns", "expected"),
    [
        (198, 384, 384, Method.TILES),
        (198, 384, 1536, Method.TILES),
        (198, 1536, 384, Method.TILES),
        (198, 192, 192, Method.TILES),
        (197, 768, 3072, Method.TILES),
        (1, 384, 1000, Method.WORDS),
        (16, 384, 384, Method.WORDS),
        (18, 96, 288, Method.WORDS),
        (198, 64, 64, Method.WORDS),
        (198, 27, 64, Method.WORDS),
    ],
)
def test_which_layers_are_worth_tiles(
    tokens: int, features: int, columns: int, expected: Method
) -> None:
    assert method(layer(tokens, features, columns), WITH_AMX) is expected


def test_tiles_pay_from_some_size_on() -> None:
    """More tokens or features never speak against tiles; whole tiles, so that none is padded."""
    for features in range(64, 2049, 64):
        chosen = [
            method(layer(tokens, features, 384), WITH_AMX) is Method.TILES
            for tokens in range(16, 400, 16)
        ]
        assert chosen == sorted(chosen), features
    for tokens in (32, 64, 192, 400):
        # Up to the features of one block of weights: beyond it sums are kept, which costs.
        chosen = [
            method(layer(tokens, features, 384), WITH_AMX) is Method.TILES
            for features in range(64, 385, 64)
        ]
        assert chosen == sorted(chosen), tokens


def test_masked_weights_count_twice_but_multiply_once() -> None:
    kinds = (Kind.MASK, Kind.MASKED)
    plain, masked = layer(64, 128, 128), layer(64, 128, 128, kinds)
    assert count_cycles(masked) == 2 * count_cycles(plain)
    assert tile_cycles(masked, WITH_AMX) == tile_cycles(plain, WITH_AMX)
    assert (method(plain, WITH_AMX), method(masked, WITH_AMX)) == (Method.WORDS, Method.TILES)


@pytest.mark.parametrize(
    ("features", "columns", "measured"),
    [(384, 1152, 206e3), (384, 1536, 275e3), (1536, 384, 260e3)],
)
def test_the_estimate_gives_what_was_measured(features: int, columns: int, measured: float) -> None:
    """Less what the prototype had not to do: spread activations, and start."""
    spread = -(-198 // 16) * 16 * (features // 64) * 2
    estimate = tile_cycles(layer(198, features, columns), WITH_AMX) - spread - 1000
    assert estimate == pytest.approx(measured, rel=0.01)


def test_no_tiles_without_amx() -> None:
    for cpu in WITHOUT:
        arch = "aarch64" if cpu.startswith("cortex") else "x86_64"
        profile = profile_of(f"llvm -mtriple={arch}-linux-gnu -mcpu={cpu}")
        expected = Method.SLICES if profile.has_neon else tiles(profile).method
        assert method(layer(198, 384, 1536), profile) is expected


@pytest.mark.parametrize("activation", list(Kind))
def test_what_is_counted_in_pairs_of_bytes(activation: Kind) -> None:
    """Rows whose counts fit 16 bits, and one count a product."""
    profile = profile_of(levels.target_of(levels.ARM[0]))
    pairs, single = Method.PAIRS, Method.BYTES
    assert method(layer(198, 2**14 - 33, 64, (activation, Kind.SIGN)), profile) is pairs
    assert method(layer(198, 2**14 - 32, 64, (activation, Kind.SIGN)), profile) is single
    assert method(layer(198, 384, 64, (activation, Kind.MASKED)), profile) is single


@pytest.mark.parametrize("l1_bytes", [16 * 1024, 32 * 1024, 48 * 1024, 64 * 1024])
def test_a_block_of_weights_fits_l1(l1_bytes: int) -> None:

    profile = replace(WITH_AMX, l1_bytes=l1_bytes)
    for count in (1, 2, 3, 11, 12, 13, 24, 25, 48, 127, 128):
        steps, most = -(-count // 2), amx_steps(profile, count)
        assert 1 <= most <= steps
        assert most == 1 or 4096 * most + 8192 <= 2 * l1_bytes // 3
        # Parts of equal length but for the last, which is not longer.
        parts = -(-steps // most)
        assert (parts - 1) * most < steps


def products(profile: Profile, spec: Dense, cut: Cut) -> dict[Instruction, int]:
    compiled = Compiled(spec, profile, cut)
    inputs = arguments(spec, np.random.default_rng(0))
    before = amx.counts()
    compiled.check(inputs)
    after = amx.counts()
    assert not amx.emulator().amx_configured()
    return {kind: after[kind] - before[kind] for kind in Instruction}


@pytest.mark.parametrize(
    ("tokens", "features", "columns", "parts"),
    [(198, 384, 64, 1), (198, 384, 64, 2), (33, 800, 40, 1), (16, 64, 32, 64), (1, 1, 1, 1)],
)
def test_no_product_is_wasted(tokens: int, features: int, columns: int, parts: int) -> None:
    """A product for each pair of tiles and 64 features; operands are loaded once a step."""
    profile = levels.runnable(levels.target_of(levels.AMX))
    if not levels.missing_here(profile):
        pytest.skip("the CPU's own tile instructions are not counted")
    spec = make_spec(
        profile, Rows(1, tokens, 1, features), Kind.SIGN, Kind.SIGN, "plain", (1, columns)
    )
    found = products(profile, spec, Cut(parts))
    blocks, tiles_, steps = -(-columns // 32), -(-tokens // 16), -(-words(features) // 2)
    splits = -(-steps // amx_steps(profile, words(features)))
    bounds = [part * tiles_ // parts for part in range(parts + 1)]
    of_part = [b - a for a, b in pairwise(bounds) if b > a]
    pairs = sum(-(-n // 2) for n in of_part)
    assert found == {
        Instruction.CONFIGURE: len(of_part),
        Instruction.CLEAR: blocks * 2 * tiles_,
        Instruction.LOAD: blocks * (steps * (tiles_ + 2 * pairs) + (splits - 1) * 2 * tiles_),
        Instruction.STORE: blocks * splits * 2 * tiles_,
        Instruction.MULTIPLY: blocks * steps * 2 * tiles_,
    }


def test_tvm_leaves_tiles_their_room() -> None:
    """Of what only tile instructions touch TVM sees one element, and may cut the rest off."""
    spec = make_spec(WITH_AMX, Rows(1, 20, 1, 24), Kind.MASK, Kind.SIGN, "plain", (1, 8))
    module = IRModule({"main": kernel(spec, WITH_AMX, usual(Method.TILES, spec, WITH_AMX))})
    passes = [s_tir.transform.ConvertBlocksToOpaque(), s_tir.transform.CompactBufferAllocation()]
    after = tvm.transform.Sequential(passes)(module)
    assert rooms(after) == rooms(module)
    assert {"2, 1, 16, 64", "1, 2, 16, 64", "32, 32"} <= set(rooms(module))


def rooms(module: IRModule) -> list[str]:
    """Shapes of a kernel's allocations, outer ones first."""
    return re.findall(r"alloc_buffer\(\((.+?),?\),", module.script())
