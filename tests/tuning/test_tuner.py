"""The tuner's loop: what is recorded, what a bad candidate costs, what is left behind."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.dialect.specs import Kind, ValuePlanes, encode
from gsb_tvm.schedules.records import load
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.isolation import TrialLost
from gsb_tvm.tuning.machines import Here, LocalMachine
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.tuner import Plan, Tuner
from gsb_tvm.tuning.workloads import Packed, Workload, key
from tests.tuning.bad import KINDS, Bad

NATIVE = resolve("native")
QUICK = Plan(None, None, build_seconds=20, run_seconds=5, memory_bytes=1 << 30)
SPEC = encode(ValuePlanes(Rows(1, 33, 2, 40), Kind.SIGN, False, (0.7,)))


def task_of(workload: Workload) -> Task:
    return Task(workload, "test", "1", 2, key(workload, NATIVE), workload.space(NATIVE))


def tune(workload: Workload, path: Path, plan: Plan = QUICK) -> Task:
    """Tune as the command does, from what is on record."""
    task = task_of(workload)
    if path.exists():
        task.add(load(path).records)
    Tuner([task], NATIVE, Here(), path, plan, "a test").run()
    return task


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Path]:
    path = tmp_path_factory.mktemp("bad") / "records"
    return tune(Bad(tuple(KINDS)), path), path


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_candidate_is_recorded_as_failed(kind: str, bad: tuple[Task, Path]) -> None:
    task, path = bad
    place = [choice["kind"] for choice in task.space].index(kind)
    assert KINDS[kind] in task.failures[place]
    (record,) = [r for r in load(path).records if r.choice["kind"] == kind]
    assert record.failure == task.failures[place]
    assert not record.seconds


def test_the_search_goes_on_behind_bad_candidates(bad: tuple[Task, Path]) -> None:
    task, path = bad
    assert task.trials == len(task.space)
    assert task.best == 0
    assert {r.choice["kind"] for r in load(path).records if not r.failure} == {"rule"}


def test_nothing_is_left_running(bad: tuple[Task, Path]) -> None:
    names = [process.cmdline() for process in children()]
    # The server of processes stays for the next job; it has no children of its own.
    assert not [
        words
        for words in names
        if "forkserver" not in " ".join(words) and "resource_tracker" not in " ".join(words)
    ]


def test_the_next_job_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "records"
    first = tune(Packed(SPEC), path, replace(QUICK, trials=5))
    assert first.trials == 5
    lines = path.read_bytes()
    again = tune(Packed(SPEC), path, replace(QUICK, trials=5))
    assert again.trials == 5
    assert path.read_bytes() == lines
    more = tune(Packed(SPEC), path, replace(QUICK, trials=9))
    assert more.trials == 9
    assert path.read_bytes().startswith(lines)
    tried = [tuple(sorted(r.choice.items())) for r in load(path).records]
    assert len(set(tried)) == 9


def test_the_rule_is_the_first_trial(tmp_path: Path) -> None:
    task = tune(Packed(SPEC), tmp_path / "records", replace(QUICK, trials=1))
    (record,) = load(tmp_path / "records").records
    assert record.choice == task.space[0]
    assert record.seconds == record.rule
    assert (task.best, task.gain) == (0, 1.0)


def test_seconds_end_a_job(tmp_path: Path) -> None:
    start = time.monotonic()
    tune(Packed(SPEC), tmp_path / "records", replace(QUICK, seconds=0.0))
    assert time.monotonic() - start < 60
    assert len(load(tmp_path / "records").records) == 1


def test_a_rule_that_cannot_be_measured_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="by rule cannot be measured: ValueError: no such"):
        tune(Bad((), first="build raises"), tmp_path / "records")


@dataclass(frozen=True)
class Vanishing(Here):
    """A machine that is there as long as no file of that name is."""

    sign: Path = Path()

    def open(self, seconds: float) -> LocalMachine:
        if self.sign.exists():
            raise TrialLost("the board has gone")
        return super().open(seconds)


def test_a_job_ends_where_boards_have_gone_for_good(tmp_path: Path) -> None:
    path, sign = tmp_path / "records", tmp_path / "gone"
    task = task_of(Packed(SPEC))

    def changed(tuner: Tuner) -> None:
        if tuner.progress.trials:
            sign.touch()

    tuner = Tuner([task], NATIVE, Vanishing(sign), path, QUICK, "a test", changed)
    with pytest.raises(ToolchainError, match="trials were lost: the board has gone"):
        tuner.run()
    (record,) = load(path).records  # what is lost says nothing about candidates
    assert record.choice == task.space[0]


def test_boards_that_come_back_lose_what_was_in_flight(tmp_path: Path) -> None:
    path, sign = tmp_path / "records", tmp_path / "gone"
    task = task_of(Packed(SPEC))

    def changed(tuner: Tuner) -> None:
        if tuner.progress.lost == 2:
            sign.unlink(missing_ok=True)
        elif tuner.progress.trials == 3 and not tuner.progress.lost:
            sign.touch()

    plan = replace(QUICK, trials=12)
    tuner = Tuner([task], NATIVE, Vanishing(sign), path, plan, "a test", changed)
    tuner.run()
    assert (tuner.progress.lost, tuner.progress.trials) == (2, 12)
    assert not task.failures
