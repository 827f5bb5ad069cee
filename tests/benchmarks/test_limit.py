import json
from pathlib import Path

import pytest
import tvm

import limit
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.dialect.work import Bound, bound, floats, macs
from gsb_tvm.models import demo
from gsb_tvm.targets import resolve
from limits import clock, timing
from limits.kernels import Kernel, kernels
from measuring.machine import runnable
from tests.schedules.levels import AMX, target_of

DEMO = Path(demo.__file__).with_name("gsb_digits.onnx")


@pytest.mark.parametrize(
    ("tokens", "expected"), [(198, "tile products"), (1, "xor, popcount, add")]
)
def test_a_layer_is_held_against_the_instructions_it_uses(tokens, expected):
    spec = Dense(Rows(1, tokens, 1, 384), Kind.SIGN, Kind.SIGN, 384, 64)
    found = timing.limit_of(Kernel("dense", spec, 1, None, ()), resolve(target_of(AMX)))
    assert found.name == expected


def test_clock_chain_is_as_long_as_claimed():
    profile = resolve("llvm -mcpu=x86-64")
    compiled = tvm.compile(tvm.IRModule({"main": clock.chain()}), target=profile.tvm_target())
    tensors = [tvm.runtime.tensor(array) for array in clock.arrays()]
    compiled.jit()["main"](*tensors)
    squarings = int(clock.cycles(profile)) // 3
    assert int(tensors[1].numpy()[0]) == pow(3, 2**squarings, 2**64)
    assert clock.cycles(resolve("llvm -mcpu=cortex-a72")) is None


def test_every_kernel_of_the_demo():
    found = kernels(DEMO, resolve("llvm -mcpu=x86-64"))
    bounds = {each.name: bound(each.spec) for each in found}
    assert bounds["dense"] is bounds["attention_value"] is Bound.COUNTING
    assert bounds["binarize"] is Bound.READING
    assert bounds["patches"] is Bound.MULTIPLYING
    assert all(macs(each.spec) or floats(each.spec) for each in found)


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


def test_gpus_are_timed_elsewhere():
    with pytest.raises(TargetError, match=r"run python -m tests\.gpu"):
        runnable("cuda -arch=sm_90")
