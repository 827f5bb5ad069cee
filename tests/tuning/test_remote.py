"""Trials on boards of a farm, and all that may befall them."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.targets import resolve
from gsb_tvm.tuning import sessions
from gsb_tvm.tuning.boards import boards_of
from gsb_tvm.tuning.farm import Address, State, farm, look, require
from gsb_tvm.tuning.remote import RemoteMachine
from gsb_tvm.tuning.sessions import BoardLost, KernelFailed, SessionExpired
from tests.tuning import farms

ONES = np.ones(farms.SIZE, "float32")


@dataclass
class Place:
    """A tracker, two servers, and kernels for them."""

    tracker: farms.Served
    servers: list[farms.Served]
    folder: Path

    @property
    def address(self) -> Address:
        return self.tracker.address()

    def machine(self, timeout_s: float = 20.0, **options: Any) -> RemoteMachine:
        return RemoteMachine(self.address, "x86", timeout_s, **options)

    def kernel(self, name: str) -> Path:
        return self.folder / f"{name}.so"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("kernels")
    port = farms.PORT
    with (
        farms.track(port, port) as tracker,
        farms.serve(("127.0.0.1", port), "x86", port + 10) as first,
        farms.serve(("127.0.0.1", port), "x86", port + 20) as second,
    ):
        modules = {"add": farms.AddOne, "crash": farms.Crash, "endless": farms.Endless}
        for name, module in modules.items():
            farms.library(module, farms.X86, folder / f"{name}.so")
        yield Place(tracker, [first, second], folder)


@pytest.fixture
def place(whole: Place) -> Place:
    """The farm, with all boards free: whatever a test did to it, the next one finds it well."""
    whole.tracker.address()
    for server in whole.servers:
        server.address()
    farms.registered(whole.address, 2)
    return whole


def run(machine: RemoteMachine, path: Path) -> np.ndarray[Any, Any]:
    function = machine.load(path)
    tensors = [machine.tensor(ONES), machine.tensor(0 * ONES)]
    function(*tensors)
    return machine.numpy(tensors[1])


def works(place: Place) -> bool:
    with place.machine() as machine:
        return bool((run(machine, place.kernel("add")) == 2).all())


def server_of(place: Place, machine: RemoteMachine) -> farms.Served:
    return next(server for server in place.servers if server.address() == machine.board)


def test_a_kernel_runs_and_is_timed(place: Place) -> None:
    with place.machine() as machine:
        function = machine.load(place.kernel("add"))
        tensors = [machine.tensor(ONES), machine.tensor(0 * ONES)]
        function(*tensors)
        np.testing.assert_array_equal(machine.numpy(tensors[1]), 2 * ONES)
        assert 0 < machine.seconds(function, [tensors], 10) < 1
        assert machine.cpu()[1].startswith("x86_64")


def test_boards_of_another_architecture_are_refused(place: Place) -> None:
    tracker = place.address
    _, count = boards_of(tracker, "x86", resolve("llvm -mcpu=haswell"))
    assert count == 2
    with pytest.raises(UsageError, match="x86_64"):
        boards_of(tracker, "x86", resolve("llvm -mcpu=cortex-a72"))
    with pytest.raises(UsageError, match="none"):
        boards_of(tracker, "none", resolve("llvm -mcpu=haswell"))


@pytest.mark.parametrize(("calls", "run"), [(1, 1), (3, 3), (7, 3)])
def test_sets_of_arguments_share_the_calls(calls: int, run: int, place: Place) -> None:
    with place.machine() as machine:
        function = machine.load(place.kernel("add"))
        sets = [[machine.tensor(n * ONES), machine.tensor(0 * ONES)] for n in range(3)]
        assert 0 < machine.seconds(function, sets, calls) < 1
        for n, (_, output) in enumerate(sets):
            assert (machine.numpy(output) == (n + 1 if n < run else 0)).all()


def test_sessions_share_the_boards(place: Place) -> None:
    with place.machine() as first, place.machine() as second:
        assert first.board != second.board
        assert {look(first.board, 0.2), look(second.board, 0.2)} == {State.BUSY}
        with pytest.raises(BoardLost, match="within 1 s"), place.machine(wait_s=1.0):
            pass
        assert (run(second, place.kernel("add")) == run(first, place.kernel("add"))).all()


def test_files_are_removed(place: Place) -> None:
    with place.machine() as machine:
        machine.load(place.kernel("add"))
        (session,) = server_of(place, machine).family()[1:]
        folder = Path(session.cwd())
        assert [path.suffix for path in folder.iterdir()] == [".so"]
    farms.soon(lambda: not folder.exists())


def test_an_error_of_the_kernel_leaves_the_session(place: Place) -> None:
    with place.machine() as machine:
        function, tensor = machine.load(place.kernel("add")), machine.tensor(ONES)
        with pytest.raises(KernelFailed, match="Expected 2 arguments"):
            function(tensor)
        assert (run(machine, place.kernel("add")) == 2).all()


def test_a_file_that_is_no_library(place: Place, tmp_path: Path) -> None:
    (tmp_path / "no.so").write_bytes(b"no library")
    with place.machine() as machine, pytest.raises(KernelFailed):
        machine.load(tmp_path / "no.so")


def test_a_crash_is_the_kernels_fault(place: Place) -> None:
    with pytest.raises(KernelFailed, match="crashed"), place.machine() as machine:
        run(machine, place.kernel("crash"))
    farms.registered(place.address, 2)
    assert works(place)


def test_an_endless_kernel_loses_its_session(place: Place) -> None:
    begin = time.monotonic()
    with pytest.raises(SessionExpired, match="took 2 s"), place.machine(2.0) as machine:
        run(machine, place.kernel("endless"))
    assert 2 <= time.monotonic() - begin < 2 + sessions.GRACE_S
    farms.registered(place.address, 2)
    assert works(place)


def test_a_server_that_is_killed_is_nobodys_fault(place: Place) -> None:
    with place.machine() as machine:
        server = server_of(place, machine)
        with farms.no_process_left(server):
            with (
                _later(0.5, server.pid, signal.SIGKILL),
                pytest.raises(BoardLost, match="has gone"),
            ):
                run(machine, place.kernel("endless"))
    assert works(place)  # on the other one
    host, port = server.address()
    folder = Path(tempfile.gettempdir(), f"gsb-tvm-board-{os.getuid()}-{host}:{port}")
    assert list(folder.glob("*/*.so"))
    server.end(signal.SIGKILL)
    server.start()
    server.address()
    assert not list(folder.iterdir())


def test_a_server_that_hangs_is_nobodys_fault(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "GRACE_S", 0.5)
    with place.machine(1.0) as machine:
        server = server_of(place, machine)
        for process in server.family():
            process.suspend()
        with pytest.raises(BoardLost, match="does not answer"):
            run(machine, place.kernel("add"))
    for process in server.family():
        process.resume()


def test_a_tuner_that_is_killed_frees_its_board(place: Place) -> None:
    def trial() -> None:
        with place.machine(2.0) as machine:
            run(machine, place.kernel("endless"))

    process = multiprocessing.get_context("fork").Process(target=trial)
    process.start()
    farms.soon(lambda: any(queue.free == 1 for queue in farm(place.address).queues))
    time.sleep(0.5)
    process.kill()
    process.join()
    farms.registered(place.address, 2)
    assert works(place)


def test_a_tracker_that_starts_anew(place: Place) -> None:
    with place.machine() as machine:
        place.tracker.end(signal.SIGKILL)
        assert (run(machine, place.kernel("add")) == 2).all()
    with pytest.raises(BoardLost, match="connection refused"), place.machine(wait_s=0.2):
        pass
    place.tracker.start()
    assert works(place)  # it waits
    farms.registered(place.address, 2)


def test_nobody_there(place: Place) -> None:
    with pytest.raises(UsageError, match=r"no tracker answers at 127.0.0.1:1 \(connection ref"):
        require(("127.0.0.1", 1), "x86")
    with pytest.raises(UsageError, match=r"no board with the key \"pi\"; its keys: x86\."):
        require(place.address, "pi")
    with pytest.raises(UsageError, match="no tracker answers"):
        farm(place.servers[0].address())
    assert require(place.address, "x86") == 2
    assert look(("127.0.0.1", 1)) is look(place.address) is State.LOST


def test_no_process_is_left(place: Place) -> None:
    all_of_it = [place.tracker, *place.servers]
    with place.machine() as machine, farms.no_process_left(*all_of_it):
        machine.load(place.kernel("add"))
        for each, number in zip(
            all_of_it, (signal.SIGTERM, signal.SIGTERM, signal.SIGINT), strict=True
        ):
            assert each.end(number) == 0
    for each in all_of_it:
        each.start()


@contextmanager
def _later(seconds: float, pid: int, number: int) -> Iterator[None]:
    """Send a signal from another process, as this one waits in TVM; it has ended at the end."""
    child = os.fork()
    if child == 0:
        try:
            time.sleep(seconds)
            os.kill(pid, number)
        finally:
            os._exit(0)
    yield
    os.waitpid(child, 0)
