"""Calls in processes of their own: order, limits, and that nothing is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gsb_tvm.tuning.isolation import Failure, Isolation, Limits
from tests.tuning import jobs

ROOT = Path(__file__).resolve().parent.parent.parent
LIMITS = Limits(60.0, 1 << 30)
_PATIENCE = 60.0
CALLER = """
import sys
from pathlib import Path
from gsb_tvm.tuning.isolation import Isolation, Limits
from tests.tuning import jobs

with Isolation() as isolation:
    isolation.call(jobs.linger, (Path(sys.argv[1]),), Limits(3600.0, 1 << 30))
"""


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    with Isolation() as made:
        yield made


def family(path: Path) -> list[psutil.Process]:
    """The processes that a job told of."""
    end = time.monotonic() + _PATIENCE
    while not path.exists():
        assert time.monotonic() < end, "the job never began"
        time.sleep(0.02)
    found = []
    for number in map(int, path.read_text().split()):
        if psutil.pid_exists(number):
            found.append(psutil.Process(number))
    return found


def all_end(processes: list[psutil.Process]) -> bool:
    """Whether they all do soon; whoever adopts them may not have asked how they ended."""
    end = time.monotonic() + _PATIENCE
    while any(map(_lives, processes)):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_one_at_a_time_they_end_in_order(isolation: Isolation) -> None:
    values = ["a", None, {"b": [1.5]}, b"\0"]
    found = list(isolation.calls(jobs.same, [(value,) for value in values], LIMITS, 1))
    assert found == list(enumerate(values))


def test_values_come_as_they_end(isolation: Isolation) -> None:
    calls = [(3.0, "slow"), (0.0, "fast"), (0.0, "last")]
    found = list(isolation.calls(jobs.after, calls, LIMITS, 2))
    assert found == [(1, "fast"), (2, "last"), (0, "slow")]


def test_no_more_than_so_many_run_at_a_time(isolation: Isolation) -> None:
    spans = [value for _, value in isolation.calls(jobs.span, [(0.2,)] * 6, LIMITS, 2)]
    for start, _ in spans:
        assert sum(begin <= start < end for begin, end in spans) <= 2


def test_arguments_are_taken_when_there_is_room(isolation: Isolation) -> None:
    taken, ended = [], []

    def arguments() -> Iterator[tuple[int]]:
        for number in range(5):
            taken.append(number)
            assert len(taken) - len(ended) <= 2
            yield (number,)

    for number, _ in isolation.calls(jobs.same, arguments(), LIMITS, 2):
        ended.append(number)
    assert sorted(ended) == taken == list(range(5))


def test_no_arguments_no_values(isolation: Isolation) -> None:
    assert list(isolation.calls(jobs.same, [], LIMITS, 2)) == []


def test_a_generator_of_arguments_that_raises(isolation: Isolation, tmp_path: Path) -> None:
    def arguments() -> Iterator[tuple[Path]]:
        yield (tmp_path / "pids",)
        family(tmp_path / "pids")
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(isolation.calls(jobs.linger, arguments(), LIMITS, 2))
    assert all_end(family(tmp_path / "pids"))
    assert isolation.call(jobs.same, (1,), LIMITS) == 1


def test_closing_early_ends_children(isolation: Isolation, tmp_path: Path) -> None:
    def arguments() -> Iterator[tuple[Path | None]]:
        yield (tmp_path / "pids",)
        family(tmp_path / "pids")
        yield (None,)

    calls = isolation.calls(jobs.linger_or_not, arguments(), LIMITS, 2)
    assert next(calls) == (1, None)
    running = family(tmp_path / "pids")
    assert running
    calls.close()
    assert all_end(running)
    assert isolation.call(jobs.same, (2,), LIMITS) == 2


def test_a_deadline_ends_grandchildren_too(isolation: Isolation, tmp_path: Path) -> None:
    limits = Limits(5.0, 1 << 30)
    outcome = isolation.call(jobs.linger, (tmp_path / "pids",), limits)
    assert outcome == Failure("no end within 5 s")
    assert all_end(family(tmp_path / "pids"))


def test_a_crash_ends_grandchildren_too(isolation: Isolation, tmp_path: Path) -> None:
    outcome = isolation.call(jobs.crash_behind_a_child, (tmp_path / "pids",), LIMITS)
    assert outcome == Failure("killed by SIGABRT")
    assert all_end(family(tmp_path / "pids"))


def test_an_alarm_of_its_own_is_the_end_of_its_time(isolation: Isolation) -> None:
    assert isolation.call(jobs.oversleep, (), LIMITS) == Failure("no end within its time")


def test_a_caller_that_is_killed_leaves_no_child(tmp_path: Path) -> None:
    path = tmp_path / "pids"
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(path)], cwd=ROOT)
    try:
        # What the child started is not ours to end: a linker ends by itself.
        *_, grandchild = family(path)
        relatives = psutil.Process(caller.pid).children(recursive=True)
        relatives.remove(grandchild)
    finally:
        caller.send_signal(signal.SIGKILL)
        caller.wait(_PATIENCE)
    grandchild.kill()
    _, left = psutil.wait_procs(relatives, timeout=10)
    for each in left:
        each.kill()
    assert not left


def test_a_value_that_waits_is_not_late(isolation: Isolation) -> None:
    """The caller may be busy with one value past the deadline of another."""
    found = {}
    calls = [(0.0, "first"), (0.5, "second")]
    for number, value in isolation.calls(jobs.after, calls, Limits(3.0, 1 << 30), 2):
        found[number] = value
        if number == 0:
            time.sleep(4.0)
    assert found == {0: "first", 1: "second"}


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (jobs.unpicklable, "a value that cannot be sent: "),
        (jobs.unreadable, "a value that cannot be read: RuntimeError: not here"),
        (jobs.exits, "ended without a result (exit status 3)"),
        (jobs.raises_keyboard_interrupt, "ended without a result (exit status 1)"),
    ],
)
def test_a_call_without_a_value(job: Any, reason: str, isolation: Isolation) -> None:
    outcome = isolation.call(job, (), LIMITS)
    assert isinstance(outcome, Failure)
    assert reason in outcome.reason
    assert not outcome.is_lost
    assert isolation.call(jobs.same, (3,), LIMITS) == 3


def test_arguments_that_cannot_travel_are_the_callers_mistake(isolation: Isolation) -> None:
    with pytest.raises((AttributeError, pickle.PicklingError)):
        isolation.call(jobs.same, (lambda: None,), LIMITS)
    assert isolation.call(jobs.same, (4,), LIMITS) == 4


def test_a_large_value_arrives(isolation: Isolation) -> None:
    value = os.urandom(1 << 20)
    assert isolation.call(jobs.same, (value,), LIMITS) == value


def test_a_child_has_no_terminal(isolation: Isolation, capfd: pytest.CaptureFixture[str]) -> None:
    assert isolation.call(jobs.speaks, (), LIMITS) == ""
    assert capfd.readouterr() == ("", "")
