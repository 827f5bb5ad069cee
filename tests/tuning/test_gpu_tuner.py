"""Tuning on the GPU of this machine, whose driver is the stand-in (tests/libcuda)."""

from dataclasses import replace
from pathlib import Path

import pytest

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.dialect.specs import Binarize, Compare, Kind, encode
from gsb_tvm.schedules.records import Record, load
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.gpus import GpuHere, gpu_here
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.tuner import Plan, Tuner
from gsb_tvm.tuning.workloads import Packed, Workload, key
from tests.libcuda.process import call
from tests.tuning.bad_gpu import BAD, BadOnGpu
from tests.tuning.emulated import Known

PROFILE = resolve("cuda -arch=sm_90")
PLAN = Plan(None, None)
SPEC = encode(Binarize(Rows(1, 5, 1, 40), Compare(Kind.SIGN, 0.0, True), norm=False, shift=True))


def tune(workload: Workload, folder: Path, plan: Plan = PLAN) -> Task:
    """Tune as the command does, from what is on record."""
    path, known = folder / "records", Known(workload, folder, 20)
    task = Task(known, "test", "1", 2, key(known, PROFILE), known.space(PROFILE))
    if path.exists():
        task.add(load(path).records)
    Tuner([task], PROFILE, GpuHere(), path, plan, "a test").run()
    return task


def records(folder: Path) -> list[Record]:
    return list(load(folder / "records").records)


def tunes_bad_kernels(folder: str) -> None:
    task = tune(BadOnGpu(tuple(BAD)), Path(folder))
    assert task.trials == len(task.space)
    assert task.best == 0


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    call(tunes_bad_kernels, folder, kernels=folder)
    return folder


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_candidate_is_recorded_as_failed(kind: str, bad: Path) -> None:
    (record,) = [each for each in records(bad) if each.choice["kind"] == kind]
    assert BAD[kind] in record.failure
    assert record.cpu == "sm_90"


def test_the_search_goes_on_behind_bad_candidates(bad: Path) -> None:
    assert {each.choice["kind"] for each in records(bad) if not each.failure} == {"rule"}


def tunes_an_endless_kernel(folder: str) -> None:
    task = tune(BadOnGpu(("endless",)), Path(folder), replace(PLAN, run_seconds=15))
    assert task.failures == {1: "no end within its time"}


@pytest.mark.slow
def test_an_endless_candidate_is_ended(tmp_path: Path) -> None:
    call(tunes_an_endless_kernel, tmp_path, kernels=tmp_path)


def tunes_a_kernel(folder: str) -> None:
    path = Path(folder)
    first = tune(Packed(SPEC), path, replace(PLAN, trials=3))
    assert (first.trials, first.failures) == (3, {})
    lines = (path / "records").read_bytes()
    more = tune(Packed(SPEC), path, replace(PLAN, trials=4))
    assert (more.trials, more.failures) == (4, {})
    assert (path / "records").read_bytes().startswith(lines)


def test_a_kernel_is_tuned_and_the_next_job_goes_on(tmp_path: Path) -> None:
    call(tunes_a_kernel, tmp_path, kernels=tmp_path)
    space = Packed(SPEC).space(PROFILE)
    for record in records(tmp_path):
        assert record.choice in space
        assert record.seconds


def finds_no_room(folder: str) -> None:
    with pytest.raises(ToolchainError, match=r"GPU 0 does not give.*nvidia-smi shows the GPU"):
        tune(BadOnGpu(), Path(folder))
    assert not Path(folder, "records").exists()


@pytest.mark.slow
def test_a_gpu_that_is_full_blames_no_kernel(tmp_path: Path) -> None:
    call(finds_no_room, tmp_path, kernels=tmp_path, memory=4096)


def finds_the_gpu() -> None:
    place, chip = gpu_here(PROFILE)
    assert place == GpuHere()
    assert chip.text == "Stand-in GPU (sm_90, 132 multiprocessors)"


def test_the_gpu_of_this_machine(tmp_path: Path) -> None:
    call(finds_the_gpu, kernels=tmp_path)


def finds_another_gpu() -> None:
    with pytest.raises(UsageError, match=r"the GPU is Stand-in GPU \(sm_80.* cuda -arch=sm_80"):
        gpu_here(PROFILE)


def test_a_gpu_of_another_architecture_is_refused(tmp_path: Path) -> None:
    call(finds_another_gpu, kernels=tmp_path, arch=80)


def finds_no_gpu() -> None:
    with pytest.raises(UsageError, match=r"a GPU is needed, and .*--tracker HOST:PORT"):
        gpu_here(PROFILE)


def test_a_machine_without_a_gpu_is_told_to_use_another(tmp_path: Path) -> None:
    call(finds_no_gpu, kernels=tmp_path, gpus=0)
