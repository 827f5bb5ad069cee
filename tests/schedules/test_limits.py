"""The loops that kernels are held against: that they do what they are said to do."""

import numpy as np
import pytest
import tvm

from gsb_tvm.schedules.limits import loops
from gsb_tvm.targets import resolve
from tests.schedules.levels import AMX, LEVELS, runnable, target_of

# An instruction of each level's counting loop, and one that would say the loop has been hoisted or
# spilled is not looked for: what counts is that the work is there as often as it is claimed.
COUNTING = {
    "znver5": ("vpopcntd", 24),
    "skylake-avx512": ("vpternlog", 20),
    "haswell": ("vpshufb", 20),
    "x86-64": ("pxor", 30),
}


def run(loop, profile):
    compiled = tvm.compile(tvm.IRModule({"main": loop.func}), target=profile.tvm_target()).jit()
    tensors = [tvm.runtime.tensor(array) for array in loop.arrays]
    compiled["main"](*tensors)
    return compiled, tensors[-1].numpy()


@pytest.mark.parametrize("level", LEVELS)
def test_loop_holds_all_its_instructions(level):
    profile = resolve(f"llvm -mcpu={level}")
    loop = loops.counting(profile)
    compiled = tvm.compile(tvm.IRModule({"main": loop.func}), target=profile.tvm_target())
    name, least = COUNTING[level]
    assert compiled.mod.inspect_source("asm").count(name) >= least


@pytest.mark.parametrize("level", LEVELS)
def test_loops_compute_what_they_say(level):
    profile = runnable(f"llvm -mcpu={level}")
    _, sums = run(loops.reading(profile, 1000), profile)
    count = loops.reading(profile, 1000).arrays[0].size
    assert sums.sum() == count
    product = loops.multiply_adds(profile)
    _, ends = run(product, profile)
    # x = x b + c with b < 1 comes to c / (1 - b), however it is rounded on the way.
    start, lanes = product.arrays[0].astype(np.float64), profile.lanes
    b, c = start[-2 * lanes : -lanes], start[-lanes:]
    settled = b < 0.9  # b**2048 is nothing then
    found = ends.reshape(-1, lanes)[:, settled]
    np.testing.assert_allclose(found, np.tile((c / (1 - b))[settled], (len(found), 1)), rtol=1e-5)


def test_popcount_chains():
    profile = runnable("llvm -mcpu=znver5")
    loop = loops.counting(profile)
    _, ends = run(loop, profile)
    values, mask = loop.arrays[0][: ends.size].copy(), np.tile(loop.arrays[0][-16:], 24)
    for _ in range(loops.STEPS):
        values += np.bitwise_count(values ^ mask)
    np.testing.assert_array_equal(ends, values)


def test_tile_products():
    profile = runnable(target_of(AMX))
    loop = loops.tile_products()
    _, ends = run(loop, profile)
    left = loop.arrays[0][:2].astype(np.int64)
    # Four features of a column stand side by side: row, column, feature.
    right = loop.arrays[0][2:].reshape(2, 16, 16, 4).transpose(0, 1, 3, 2).reshape(2, 64, 16)
    for tile in range(4):
        np.testing.assert_array_equal(ends[tile], loops.STEPS * (left[tile // 2] @ right[tile % 2]))
