import json
from pathlib import Path

import numpy as np
import pytest
import tvm

import limit
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import AttentionValue, BatchMatmul, Compare, Dense, Kind
from gsb_tvm.models import demo
from gsb_tvm.targets import resolve
from limits import clock, loops
from limits.kernels import kernels
from limits.work import Bound, bound_of, floats_of, macs_of
from tests.schedules.levels import LEVELS, runnable

DEMO = Path(demo.__file__).with_name("gsb_digits.onnx")
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


def test_clock_chain_is_as_long_as_claimed():
    profile = resolve("llvm -mcpu=x86-64")
    compiled = tvm.compile(tvm.IRModule({"main": clock.chain()}), target=profile.tvm_target())
    tensors = [tvm.runtime.tensor(array) for array in clock.arrays()]
    compiled.jit()["main"](*tensors)
    squarings = int(clock.cycles(profile)) // 3
    assert int(tensors[1].numpy()[0]) == pow(3, 2**squarings, 2**64)
    assert clock.cycles(resolve("llvm -mcpu=cortex-a72")) is None


def test_work_of_a_kernel():
    rows, other = Rows(2, 5, 1, 33), Rows(2, 7, 1, 33)
    assert macs_of(Dense(rows, Kind.SIGN, Kind.SIGN, 10, 64)) == 2 * 5 * 33 * 10
    heads = Rows(1, 9, 3, 8)
    assert macs_of(AttentionValue(heads, Kind.SIGN, 3, 3, True, Compare(Kind.SIGN))) == 9 * 9 * 24
    assert macs_of(BatchMatmul(rows, other, (Kind.SIGN,), (Kind.MASK,))) == 2 * 5 * 7 * 33


def test_every_kernel_of_the_demo():
    found = kernels(DEMO, resolve("llvm -mcpu=x86-64"))
    bounds = {each.name: bound_of(each.spec) for each in found}
    assert bounds["dense"] is bounds["attention_value"] is Bound.COUNTING
    assert bounds["binarize"] is Bound.READING
    assert bounds["patches"] is Bound.MULTIPLYING
    assert all(macs_of(each.spec) or floats_of(each.spec) for each in found)


def test_table_and_json(tmp_path, capsys):
    path = tmp_path / "figures.json"
    code = limit.main(
        ["--model", str(DEMO), "--rounds", "2", "--seconds", "1e-5", "--json", str(path)]
    )
    assert code == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())["figures"]
    assert all(0 < each["share"] for each in figures["kernels"])
    assert all(0 < each["microseconds_inside"] for each in figures["kernels"])
    for each in figures["kernels"]:
        assert each["name"] in printed
        assert each["shape"] in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "absent.onnx"], "there is no such file"),
        (["--model", str(DEMO), "--preset", "mini"], "exclude each other"),
        (["--target", "llvm -mcpu=cortex-a72"], "nothing can be timed on it"),
        (["--target", "llvm -mcpu=haswel"], "haswell"),
        (["--core", "4096"], "there is no core 4096"),
        (["--core", "0,1"], "is a list, expected one number"),
        (["--seconds", "soon"], "invalid float value"),
        (["--json", "absent/figures.json"], "its folder cannot be written to"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence, capsys):
    assert limit.main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert sentence in printed
