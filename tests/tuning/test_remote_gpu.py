"""Trials on the GPUs of a farm: of a board whose driver is the stand-in, of one that has none."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from gsb_tvm.cli import main
from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.runtime.kernel_library import kernel_in, write_kernel
from gsb_tvm.schedules.records import load
from gsb_tvm.targets import resolve
from gsb_tvm.tuning import boards
from gsb_tvm.tuning.boards import GpuBoards, boards_of
from gsb_tvm.tuning.isolation import TrialError
from gsb_tvm.tuning.sessions import BoardLost, KernelFailed, SessionExpired
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.tuner import Plan, Tuner
from gsb_tvm.tuning.workloads import key
from tests.tuning import farms
from tests.tuning.bad_gpu import SIZE, BadOnGpu
from tests.tuning.emulated import Known

PORT = farms.PORT + 70
PROFILE = resolve("cuda -arch=sm_90")
ONES = np.ones(SIZE, np.int32)
MEMORY = 16 << 20  # of the GPU, bytes


@dataclass
class Farm:
    """A tracker, a board with a GPU under the key "gpu", one without under "cpu"."""

    tracker: farms.Served
    gpu: farms.Served
    folder: Path

    def place(self, name: str = "gpu", arch: str = "sm_90") -> GpuBoards:
        return GpuBoards(self.tracker.address(), name, arch)

    def kernel(self, kind: str) -> Path:
        """A file of the kernel of a kind, whose source the board knows."""
        folder = self.folder / kind.replace(" ", "-")
        if not folder.exists():
            folder.mkdir()
            known = Known(BadOnGpu(), self.folder, 1)
            write_kernel(known.function(PROFILE, {"kind": kind}), PROFILE, folder)
        return kernel_in(folder)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("gpu")
    address = ("127.0.0.1", PORT)
    with (
        farms.track(PORT, PORT) as tracker,
        farms.serve_gpu(address, "gpu", PORT + 1, folder, memory=MEMORY) as gpu,
        farms.serve(address, "cpu", PORT + 15) as cpu,
    ):
        for each in (tracker, gpu, cpu):
            each.address()
        farms.registered(tracker.address(), 2)
        yield Farm(tracker, gpu, folder)


def test_a_kernel_runs_and_is_timed(farm: Farm) -> None:
    with farm.place().open(60) as machine:
        function = machine.load(farm.kernel("rule"))
        sets = [[machine.tensor(n * ONES), machine.tensor(0 * ONES)] for n in range(3)]
        function(*sets[0])
        np.testing.assert_array_equal(machine.numpy(sets[0][1]), ONES)
        assert machine.numpy(sets[1][1]).sum() == 0
        assert 0 < machine.seconds(function, sets, 3) < 10
        np.testing.assert_array_equal(machine.numpy(sets[2][1]), 3 * ONES)


def test_tensors_of_all_shapes_come_back(farm: Farm) -> None:
    arrays = [np.float32(2.5) * np.ones((2, 3, 4), np.float32), np.zeros(1, np.uint32)]
    with farm.place().open(60) as machine:
        for array in [*arrays, np.empty((0, 3), np.int8)]:
            found = machine.numpy(machine.tensor(array))
            np.testing.assert_array_equal(found, array)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)


def test_what_a_kernel_does_wrong_is_its_fault(farm: Farm) -> None:
    with farm.place().open(60) as machine:
        tensors = [machine.tensor(ONES), machine.tensor(0 * ONES)]
        machine.load(farm.kernel("overruns"))(*tensors)
        with pytest.raises(KernelFailed, match=r"^wrote outside its tensors$"):
            machine.numpy(tensors[1])
        with pytest.raises(KernelFailed, match=r"^left something in its state$"):
            machine.load(farm.kernel("keeps count"))(*tensors)
        with pytest.raises(KernelFailed, match="CUDA_ERROR_INVALID_VALUE"):
            machine.load(farm.kernel("many threads"))(*tensors)


def test_a_gpu_that_a_kernel_spoiled_is_well_for_the_next(farm: Farm) -> None:
    path = farm.kernel("goes far")
    with farm.place().open(60) as machine:
        tensors = [machine.tensor(ONES), machine.tensor(0 * ONES)]
        with pytest.raises(KernelFailed, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            machine.load(path)(*tensors)
        with pytest.raises(KernelFailed, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            machine.numpy(tensors[0])
    farms.registered(farm.tracker.address(), 2)
    with farm.place().open(60) as machine:
        np.testing.assert_array_equal(machine.numpy(machine.tensor(ONES)), ONES)


def test_an_endless_kernel_loses_its_session(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "_WAKE_SECONDS", 0.0)
    path = farm.kernel("endless")
    with pytest.raises(SessionExpired, match="took 10 s"), farm.place().open(10) as machine:
        machine.load(path)(machine.tensor(ONES), machine.tensor(0 * ONES))
    farms.registered(farm.tracker.address(), 2)


def test_a_gpu_without_room_loses_the_trial(farm: Farm) -> None:
    with farm.place().open(60) as machine:
        with pytest.raises(BoardLost, match=r"127\.0\.0\.1:\d+: GPU 0 does not give"):
            machine.tensor(np.zeros(MEMORY, np.uint8))
        size = MEMORY // 2
        while size > 256:  # until nothing is left for a kernel's own
            try:
                machine.tensor(np.zeros(size, np.uint8))
            except BoardLost:
                size //= 2
        with pytest.raises(BoardLost, match=r"127\.0\.0\.1:\d+: GPU 0 does not give"):
            machine.load(farm.kernel("rule"))


def test_what_is_sent_once_is_there_again_as_it_was(farm: Farm) -> None:
    with farm.place().open(60) as machine:
        first, ones = machine.tensor(ONES), machine.tensor(0 * ONES)
        machine.load(farm.kernel("spoils input"))(first, ones)
        again = machine.tensor(ONES)
        assert again.number != first.number
        assert machine.numpy(first)[-1] == -1
        np.testing.assert_array_equal(machine.numpy(again), ONES)


def test_what_is_no_kernel_is_refused(farm: Farm, tmp_path: Path) -> None:
    (tmp_path / "kernel.gpu").write_bytes(b"something else")
    with farm.place().open(60) as machine, pytest.raises(TrialError, match="no kernel for a GPU"):
        machine.load(tmp_path / "kernel.gpu")


def test_a_board_without_a_gpu_loses_the_trial(farm: Farm) -> None:
    with (
        pytest.raises(BoardLost, match=r"127\.0\.0\.1:\d+: a GPU is needed, and"),
        farm.place("cpu").open(60),
    ):
        pass


def test_a_board_with_another_gpu_loses_the_trial(farm: Farm) -> None:
    with (
        pytest.raises(BoardLost, match=r"127\.0\.0\.1:\d+ has the GPU Stand-in GPU \(sm_90,"),
        farm.place(arch="sm_80").open(60),
    ):
        pass


def test_boards_are_asked_before(farm: Farm) -> None:
    tracker = farm.tracker.address()
    assert boards_of(tracker, "gpu", PROFILE) == (farm.place(), 1)
    for key_, target in (("cpu", "cuda -arch=sm_90"), ("gpu", "cuda -arch=sm_80")):
        with pytest.raises(UsageError, match=f'with the key "{key_}" are not for sm_.*--target'):
            boards_of(tracker, key_, resolve(target))


def test_the_list_says_what_boards_are(farm: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    address = "{}:{}".format(*farm.tracker.address())
    assert main(["device", "list", "--json", "--tracker", address]) == 0
    machines = {b["key"]: b["machine"] for b in json.loads(capsys.readouterr().out)["boards"]}
    assert machines["gpu"] == "Stand-in GPU (sm_90, 132 multiprocessors)"
    assert re.match("[A-Za-z]", machines["cpu"])
    assert "with Stand-in GPU (sm_90" in farm.gpu.said()


def tune(farm: Farm, place: GpuBoards, path: Path, plan: Plan) -> Task:
    known = Known(BadOnGpu(("wrong",)), farm.folder, 2)
    task = Task(known, "test", "1", 2, key(known, PROFILE), known.space(PROFILE))
    Tuner([task], PROFILE, place, path, plan, "a test").run()
    return task


PLAN = Plan(None, None, build_seconds=60, run_seconds=30)


def test_tuning_over_the_farm(farm: Farm, tmp_path: Path) -> None:
    task = tune(farm, farm.place(), tmp_path / "records", PLAN)
    assert task.failures == {1: "wrong result: 1 numbers of output 0"}
    assert {r.cpu for r in load(tmp_path / "records").records} == {"sm_90"}


def test_tuning_on_boards_without_the_gpu_blames_no_kernel(farm: Farm, tmp_path: Path) -> None:
    plan = replace(PLAN, trials=1)
    with pytest.raises(ToolchainError, match=r"a GPU is needed.*gsb-tvm device list shows"):
        tune(farm, farm.place("cpu"), tmp_path / "records", plan)
    assert not (tmp_path / "records").exists()
