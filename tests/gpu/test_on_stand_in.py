"""The command on a stand-in for NVIDIA's driver, which emulates kernels (tests/libcuda)."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.gpu.events import Clock
from benchmarks.gpu.limits import NOTHING, Limits, Rate
from benchmarks.gpu.parts import Watched, node_seconds, parts
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime.cuda.driver import CopyNode, CudaDevice
from gsb_tvm.runtime.cuda.session import load_cuda
from tests.gpu import model_checks, timed_kernels, timed_limits, tuner_checks, watched_checks
from tests.gpu.drawing import images, samples
from tests.gpu.folder import CONTENTS, LIMITS, artefact, contents
from tests.gpu.kernel_checks import checking
from tests.gpu.running import ROOT
from tests.libcuda.build import environment
from tests.libcuda.process import call


def command(folder: Path, emulations: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "tests.gpu", str(folder), *words],
        cwd=ROOT,
        env=environment(emulations),
        capture_output=True,
        text=True,
        check=False,
    )


def test_checks_pass(folder: Path, emulations: Path, tmp_path: Path):
    found = tmp_path / "found.json"
    chosen = ("--only", "environment", "--only", "kernels")
    done = command(folder, emulations, "--json", str(found), *chosen)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {
        row["name"]: row["verdict"]
        for stage in json.loads(found.read_text())
        for row in stage["rows"]
    }
    assert rows["device"] == rows["graph"] == rows["values.0"] == "ok"


def tries_kernels(folder):
    tuner_checks._CALLS = 2
    wanted = tuner_checks.units(Path(folder))
    check = tuner_checks.opened(Path(folder), wanted)
    for name in wanted:
        (row,) = check(name)
        assert (row.verdict, row.text) == ("ok", "on Stand-in GPU (sm_90, 132 multiprocessors)")


def test_kernels_as_the_tuner_tries_them(folder: Path, emulations: Path):
    call(tries_kernels, folder, kernels=emulations)


def watches_kernels(folder):
    """As under compute-sanitizer: memory comes as it is."""
    cases = {case.name: case for case in contents(Path(folder)).cases}
    gpu = watched_checks.Unset(0)
    check = checking(Path(folder), cases, gpu, samples, watched=True)
    for name in cases:
        assert [row.verdict for row in check(name)] == ["ok"]


def test_watched_kernels(folder: Path, emulations: Path):
    call(watches_kernels, folder, kernels=emulations)


def times_a_kernel(folder):
    timed_kernels._ROUNDS, timed_kernels._REPEATED = 2, 2
    device = CudaDevice(0)
    clock = Clock(device)
    cases = contents(Path(folder)).cases[:1]
    found = timed_kernels._timed(Path(folder), cases, device, clock, samples)
    limits = {name: Rate("", 1e12, 1, 1) for name in ("b1_mma", "memory_read")}
    row = timed_kernels._row("values", cases, found, limits)
    assert row.figures["rule_us"] == row.figures["best_us"] > 0
    assert row.figures["memory_share"] > 0
    assert "b1_share" not in row.figures


def test_timing_of_a_kernel(folder: Path, emulations: Path):
    call(times_a_kernel, folder, kernels=emulations)


def times_launches(folder):
    timed_limits._ROUNDS, timed_limits._LAUNCHES = 2, 5
    device = CudaDevice(0)
    limits = Limits(device, Path(folder, LIMITS).read_bytes(), 132)
    row = timed_limits._launches(device, Clock(device), limits)
    assert row.figures["graph_us"] > 0
    assert row.figures["launched_us"] > 0


def test_timing_of_launches(folder: Path, emulations: Path):
    call(times_launches, folder, kernels=emulations)


@pytest.fixture(scope="module")
def with_demo(folder: Path, emulations: Path) -> Path:
    """The folder, and the demo model in it."""
    from gsb_tvm.runtime.cuda import code  # imports TVM, which the processes do without
    from tests.gpu import prepare
    from tests.libcuda.emulations import emulating

    with emulating(emulations, code):
        model = prepare.model(folder, "demo", model_path(), None, "sm_90")
    both = msgspec.structs.replace(contents(folder), models=(model,))
    (folder / CONTENTS).write_bytes(msgspec.json.encode(both))
    assert contents(folder) == both
    return folder


def checks_a_model(folder):
    """In the ways that need no framework with CUDA and few calls."""
    wanted = ["demo, batch 1", "demo, called again", "demo, cut batches"]
    assert set(wanted) < set(model_checks.units(Path(folder)))
    check = model_checks.opened(Path(folder), wanted)
    found = [row for unit in wanted for row in check(unit)]
    assert [row.verdict for row in found] == ["ok"] * 3
    assert found[0].figures["exact"] == found[0].figures["images"] == 32


@pytest.mark.slow
def test_models_pass(with_demo: Path, emulations: Path):
    call(checks_a_model, with_demo, kernels=emulations)


def times_parts(folder):
    (model,) = contents(Path(folder)).models
    device = Watched(0)
    module = load_cuda(artefact(Path(folder), model), device)
    program = module.metadata.program
    module(images(program.inputs[0], 1, model.references[0].seeds[0])[:1])
    clock = Clock(device)
    launches = [node for node in device.nodes if not isinstance(node, CopyNode)]
    limits = Limits(device, Path(folder, LIMITS).read_bytes(), 1)
    pause = limits.node(NOTHING)
    seconds = node_seconds(device, clock, launches, pause, 1)
    found = parts(program, seconds, "demo")
    assert sum(part.launches for part in found) == len(program.launches)
    assert abs(sum(part.seconds for part in found) - sum(seconds)) < 1e-9


@pytest.mark.slow
def test_timing_of_parts(with_demo: Path, emulations: Path):
    call(times_parts, with_demo, kernels=emulations)
