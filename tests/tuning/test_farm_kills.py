"""A farm with an emulated board, and a job on it that goes on whatever is killed."""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsb_tvm.dialect.errors import ExitCode
from gsb_tvm.schedules.records import load
from gsb_tvm.tuning.farm import Address
from gsb_tvm.tuning.remote import RemoteMachine
from gsb_tvm.tuning.sessions import BoardLost, KernelFailed, SessionExpired
from tests.tuning import board, farms

pytestmark = pytest.mark.slow

KILLS = 20
ONES = np.ones(farms.SIZE, "float32")
KEYS = ("x86", "x86", "pi4")


@dataclass
class Place:
    tracker: farms.Served
    servers: list[farms.Served]
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("kernels")
    address = ("127.0.0.1", farms.PORT)
    with ExitStack() as stack:
        tracker = stack.enter_context(farms.track(farms.PORT, farms.PORT))
        makers = [farms.serve, farms.serve, farms.serve_arm]
        try:
            servers = [
                stack.enter_context(make(address, key, farms.PORT + 10 * number))
                for number, (make, key) in enumerate(zip(makers, KEYS, strict=True), 1)
            ]
        except board.Unavailable as err:
            pytest.skip(f"no emulated board: {err}")
        modules = {
            "add": farms.AddOne,
            "crash": farms.Crash,
            "endless": farms.Endless,
            "nap": farms.Nap,
        }
        for name, module in modules.items():
            farms.library(module, farms.X86, folder / f"{name}-x86.so")
            farms.library(module, farms.ARM, folder / f"{name}-pi4.so")
        for server in servers:
            server.address()
        yield Place(tracker, servers, folder)


def run(machine: RemoteMachine, path: Path) -> Any:
    function = machine.load(path)
    tensors = [machine.tensor(ONES), machine.tensor(0 * ONES)]
    function(*tensors)
    return machine.numpy(tensors[1])


def test_a_kernel_runs_and_is_timed_on_the_emulated_board(place: Place) -> None:
    farms.registered(place.tracker.address(), 3)
    with RemoteMachine(place.tracker.address(), "pi4", 60) as machine:
        function = machine.load(place.folder / "add-pi4.so")
        tensors = [machine.tensor(ONES), machine.tensor(0 * ONES)]
        function(*tensors)
        np.testing.assert_array_equal(machine.numpy(tensors[1]), 2 * ONES)
        assert 0 < machine.seconds(function, [tensors], 10) < 1
        with pytest.raises(KernelFailed):
            machine.load(place.folder / "add-x86.so")


def test_bad_kernels_on_the_emulated_board(place: Place) -> None:
    machine = RemoteMachine(place.tracker.address(), "pi4", 20)
    with pytest.raises(KernelFailed, match="crashed"), machine:
        run(machine, place.folder / "crash-pi4.so")
    machine = RemoteMachine(place.tracker.address(), "pi4", 5)
    with pytest.raises(SessionExpired), machine:
        run(machine, place.folder / "endless-pi4.so")
    farms.registered(place.tracker.address(), 3)


def test_no_process_of_the_emulated_board_is_left(place: Place) -> None:
    server = place.servers[2]
    for number in (signal.SIGKILL, signal.SIGTERM):
        with RemoteMachine(place.tracker.address(), "pi4", 60) as machine:
            machine.load(place.folder / "add-pi4.so")
            with farms.no_process_left(server):
                server.end(number)
        server.start()
        server.address()
    farms.registered(place.tracker.address(), 3)


@dataclass
class Job:
    """So many trials of each key, as many at a time as there are boards, each in a process."""

    tracker: Address
    folder: Path
    left: Counter[str]
    outcomes: Counter[str] = field(default_factory=Counter)
    boards: set[Address] = field(default_factory=set)
    running: list[tuple[Any, Any, str]] = field(default_factory=list)

    def step(self) -> None:
        """Start what there is room for, and take what has ended."""
        for process, receiver, key in list(self.running):
            if process.is_alive():
                continue
            try:
                outcome, where = receiver.recv()
            except EOFError:
                outcome, where = "killed", None
            self.outcomes[outcome] += 1
            self.running.remove((process, receiver, key))
            if outcome == "done":
                self.boards.add(where)
            else:
                self.left[key] += 1
        for key in KEYS:
            busy = Counter(each[2] for each in self.running)
            if self.left[key] and busy[key] < KEYS.count(key):
                self.left[key] -= 1
                context = multiprocessing.get_context("fork")
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=self._trial, args=(sender, key), daemon=True)
                process.start()
                sender.close()
                self.running.append((process, receiver, key))

    def _trial(self, sender: Any, key: str) -> None:
        try:
            with RemoteMachine(self.tracker, key, 20) as machine:
                assert (run(machine, self.folder / f"nap-{key}.so") == 1).all()
                sender.send(("done", machine.board))
        except BoardLost:
            sender.send(("lost", None))
        except Exception as err:
            sender.send((f"{type(err).__name__}: {err}", None))


def test_a_job_goes_on_whatever_is_killed(place: Place) -> None:
    """A kill of a board or of a trial costs one trial at most, one of the tracker none."""
    rng = random.Random(1)
    victims = [*place.servers, place.tracker, None] * (KILLS // 5)
    rng.shuffle(victims)
    job = Job(place.tracker.address(), place.folder, Counter(x86=60, pi4=20))
    killed, due = 0, time.monotonic() + 2
    end = time.monotonic() + 500
    while job.left.total() or job.running or killed < KILLS:
        assert time.monotonic() < end, job
        if killed == KILLS or job.left.total():
            job.step()
        else:
            job.left += Counter(x86=2, pi4=1)  # kills are left
        if killed < KILLS and time.monotonic() > due:
            _kill(victims[killed], job)
            killed += 1
            due = time.monotonic() + rng.uniform(1, 8)
        time.sleep(0.02)
    assert set(job.outcomes) <= {"done", "lost", "killed"}, job.outcomes
    assert job.outcomes["done"] >= 80
    assert job.outcomes["killed"] <= KILLS // 5
    assert job.outcomes["lost"] <= 3 * KILLS // 5
    assert job.boards == {server.address() for server in place.servers}
    farms.registered(place.tracker.address(), 3)


@dataclass
class Tune:
    """``gsb-tvm tune`` for one key, started again where it was killed."""

    arguments: list[str]
    end: float
    process: Any = None

    def start(self) -> None:
        minutes = max(0.1, (self.end - time.monotonic()) / 60)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gsb_tvm.tune", *self.arguments, "--minutes", f"{minutes:.2f}"],
            cwd=board.ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """Kill it in mid-flight, and start it anew."""
        self.process.kill()
        self.process.communicate()
        self.start()

    def keep_up(self) -> None:
        """Start it anew where it found no tracker or no board, which it says at once."""
        if self.process.poll() == ExitCode.USAGE:
            self.process.communicate()
            self.start()

    def finish(self) -> dict[str, Any]:
        """What the last of them says."""
        farms.soon(lambda: self.keep_up() or self.process.poll() is not None, 300)
        out, _ = self.process.communicate()
        assert self.process.returncode == ExitCode.OK, out
        return dict(json.loads(out))


def test_tuning_goes_on_whatever_is_killed(place: Place, tmp_path: Path) -> None:
    """Twenty kills of boards, of the tracker and of tuners; no candidate is blamed for one."""
    rng = random.Random(2)
    address = "{}:{}".format(*place.tracker.address())
    end = time.monotonic() + 240
    tunes = [
        Tune([*target, "--key", key, "--tracker", address, "--records", records, "--json"], end)
        for target, key, records in (
            (["--target", "llvm", "-mcpu=haswell"], "x86", str(tmp_path / "x86.records")),
            (["--target", "raspberry-pi/4b-aarch64"], "pi4", str(tmp_path / "pi4.records")),
        )
    ]
    victims = [*place.servers, place.tracker, rng.choice(tunes)] * (KILLS // 5)
    rng.shuffle(victims)
    used = set()
    for tune in tunes:
        tune.start()
    due = time.monotonic() + 30
    while victims:
        for tune in tunes:
            tune.keep_up()
        used |= {server.pid for server in place.servers if len(server.family()) > 1}
        if time.monotonic() > due:
            victim = victims.pop()
            if isinstance(victim, Tune):
                victim.kill()
            else:
                _kill(victim, None)
            due = time.monotonic() + rng.uniform(2, 9)
        time.sleep(0.02)
    for tune, key in zip(tunes, ("x86", "pi4"), strict=True):
        result = tune.finish()
        assert result["lost"] <= KILLS
        found = load(tmp_path / f"{key}.records")
        assert not found.faults
        assert [record.failure for record in found.records if record.failure] == []
        assert len(found.records) >= result["trials"] > 15
    assert used
    farms.registered(place.tracker.address(), 3)


def _kill(victim: farms.Served | None, job: Job | None) -> None:
    """Kill a trial, or a part of the farm and start it anew."""
    if victim is None:
        if job and job.running:
            job.running[0][0].kill()
        return
    victim.end(signal.SIGKILL)
    victim.start()
