"""Tuning the kernels of a model: rounds of proposals, builds, measurements and records.

Every trial is recorded as it ends, in a file that survives whatever happens to the tuner; what is
recorded is not tried again. Times are taken in turn with those of the rule's kernel and compared
with them, so that a machine that slows down for a while favours nobody.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime.outfile import scratch_folder
from gsb_tvm.schedules.records import Record, append
from gsb_tvm.schedules.standings import DISTURBED
from gsb_tvm.targets import Profile
from gsb_tvm.tuning import children
from gsb_tvm.tuning.children import Build, Measure, Timing
from gsb_tvm.tuning.isolation import Failure, Isolation, Limits
from gsb_tvm.tuning.machines import Place
from gsb_tvm.tuning.search import Search
from gsb_tvm.tuning.tasks import Task

_BATCH = 8  # proposals of a kernel at a time
_PAIRS = 15  # timings of a candidate
_RULE_PAIRS = 75  # of a rule's kernel by itself
_CONTENDERS = 3  # of a kernel that are measured again in each of its rounds
_RETRIES = 2  # of a measurement at a moment that was disturbed
_SEARCH = 0.85  # share of the time; then contenders are measured until they are proven or not
_PATIENCE = 8  # trials for each board that may be lost one after another
_MOST_BUILDS = 16  # at a time: each takes some 100 MB
_PASSES = 4  # over all sets of arguments beside the timings
_SLOWER = 20  # times the rule's kernel that a candidate may take before it is ended
_RULE_CHANCES = 5  # a rule's trial may be lost but once less: the job needs its time
_MOST_LOST = 2  # trials of a choice that may be lost before the job leaves it out
_SCRATCH_BYTES = 256 << 20

_Call = TypeVar("_Call")


@dataclass(frozen=True)
class Plan:
    """How much to tune.

    Attributes
    ----------
    trials
        In all, with those on record; None for no limit.
    seconds
        From now on; None for no limit.
    seed
        Of the search and of the samples.
    boards
        Candidates that may be measured at the same time: more than one on a farm only.
    build_seconds, run_seconds, memory_bytes
        What building a candidate may take, and measuring one beside its calls.
    """

    trials: int | None
    seconds: float | None
    seed: int = 0
    boards: int = 1
    build_seconds: float = 180.0
    run_seconds: float = 20.0
    memory_bytes: int = 4 << 30


@dataclass
class Progress:
    """How far a job is."""

    started: float
    before: int
    trials: int = 0
    lost: int = 0
    doing: str = ""


class Tuner:
    """One job. ``changed`` is called whenever there is something to show."""

    def __init__(
        self,
        tasks: Sequence[Task],
        profile: Profile,
        place: Place,
        records: Path,
        plan: Plan,
        host: str,
        changed: Callable[["Tuner"], None] = lambda _tuner: None,
    ) -> None:
        self.tasks = tasks
        self.plan = plan
        self.progress = Progress(time.monotonic(), sum(task.trials for task in tasks))
        self._profile, self._place, self._records = profile, place, records
        self._host, self._changed = host, changed
        self._searches: dict[int, Search] = {}
        self._lost: dict[tuple[int, int], int] = {}
        self._bases: dict[int, Path] = {}
        self._lost_in_a_row = 0
        self._seed = plan.seed

    @property
    def trials(self) -> int:
        """In all, with those on record before."""
        return self.progress.before + self.progress.trials

    @property
    def seconds_left(self) -> float | None:
        """Until the plan is fulfilled, as far as can be said."""
        passed = time.monotonic() - self.progress.started
        if self.plan.seconds is not None:
            return max(0.0, self.plan.seconds - passed)
        if self.plan.trials is None or not self.progress.trials:
            return None
        return passed / self.progress.trials * max(0, self.plan.trials - self.trials)

    def run(self) -> None:
        """Tune until the plan is fulfilled or nothing is left to try.

        Raises
        ------
        ToolchainError
            The rule's kernel of some task cannot be built or run.
        OutputError
            Records or temporary files cannot be written.
        """
        if all(0 in task.ratios for task in self.tasks) and (
            self._is_late(1.0) or not (self._goes_on() or self._contenders())
        ):
            return
        with scratch_folder(_SCRATCH_BYTES) as folder, Isolation() as isolation:
            self._measure_rules(isolation, folder)
            while self._goes_on():
                chosen = self._worthwhile()
                old = [(n, place) for n, place in self._contenders() if n in chosen]
                self._round(isolation, folder, [*old, *self._proposals(chosen)])
            while (old := self._contenders()) and not self._is_late(1.0):
                self._round(isolation, folder, old)

    def _goes_on(self) -> bool:
        """Whether there is more to try, and time and trials for it."""
        has_trials = self.plan.trials is None or self.trials < self.plan.trials
        return has_trials and not self._is_late(_SEARCH) and bool(self._worthwhile())

    def _is_late(self, share: float) -> bool:
        """Whether so much of the plan's time has passed."""
        passed = time.monotonic() - self.progress.started
        return self.plan.seconds is not None and passed >= share * self.plan.seconds

    def _contenders(self) -> list[tuple[int, int]]:
        """Tasks and choices that must be measured again before they may replace a rule's."""
        return [
            (number, place)
            for number, task in enumerate(self.tasks)
            for place in task.contenders(_CONTENDERS)
            if self._lost.get((number, place), 0) < _MOST_LOST
        ]

    def _worthwhile(self) -> list[int]:
        """Tasks of the next round: as many as keep all boards busy, the most promising first."""
        open_ = [i for i, task in enumerate(self.tasks) if task.promise > 0 and self._is_open(i)]
        order = sorted(open_, key=lambda i: (-self.tasks[i].promise, i))
        return order[: -(-2 * self.plan.boards // _BATCH)]

    def _is_open(self, number: int) -> bool:
        """Whether a task has choices that are neither tried nor lost too often."""
        task = self.tasks[number]
        given_up = sum(
            count >= _MOST_LOST and place not in task.results
            for (owner, place), count in self._lost.items()
            if owner == number
        )
        return task.trials + given_up < len(task.space)

    def _measure_rules(self, isolation: Isolation, folder: Path) -> None:
        """Build every task's rule, which others are timed against; record it where it is new."""
        self._show("rules")
        jobs = []
        for number, task in enumerate(self.tasks):
            base = folder / f"rule{number}"
            self._bases[number] = base
            jobs.append((self._build(task, 0, base),))
        for number, failure in self._builds(isolation, jobs):
            if failure is not None:
                self._refuse(self.tasks[number], failure)
        seconds = 3 * self.plan.run_seconds
        limits = self._place.limits(seconds, self.plan.memory_bytes)
        waiting = [i for i, task in enumerate(self.tasks) if 0 not in task.ratios]
        for chances in reversed(range(_RULE_CHANCES)):
            calls = [(self._measurement(i, self._bases[i], _RULE_PAIRS, seconds),) for i in waiting]
            again = []
            for order, outcome in isolation.calls(
                children.measure, calls, limits, self.plan.boards
            ):
                number = waiting[order]
                if not isinstance(outcome, Failure):
                    self._record(number, 0, outcome)
                elif outcome.is_lost and not outcome.is_late and chances:
                    self.progress.lost += 1
                    again.append(number)
                else:
                    self._refuse(self.tasks[number], outcome)
            waiting = again

    def _refuse(self, task: Task, failure: Failure) -> None:
        where = self._place.advice if failure.is_lost else "see gsb-tvm doctor"
        raise ToolchainError(
            f"{task.name} {task.shape}: the kernel by rule cannot be measured: {failure.reason}. "
            f"Without it there is nothing to compare with; {where}."
        )

    def _round(self, isolation: Isolation, folder: Path, picked: Sequence[tuple[int, int]]) -> None:
        """Build candidates, given as tasks and choices, then measure them one by one."""
        folders = {each: folder / f"candidate{each[0]}-{each[1]}" for each in picked}
        chosen = sorted({number for number, _ in picked})
        names = ", ".join(dict.fromkeys(self.tasks[n].name for n in chosen))
        try:
            self._show(f"building {names}")
            jobs = [(self._build(self.tasks[n], place, folders[n, place]),) for n, place in picked]
            built = []
            for order, failure in self._builds(isolation, self._while_time(jobs)):
                if failure is None:
                    built.append(picked[order])
                else:
                    self._settle(*picked[order], failure)
            self._show(f"measuring {names}")
            self._measure(isolation, sorted(built, key=picked.index), folders)
        finally:
            for path in folders.values():
                shutil.rmtree(path, ignore_errors=True)
        for number in chosen:
            if number in self._searches:
                results = self.tasks[number].results
                told = {p: results[p] for n, p in picked if n == number and p in results}
                self._searches[number].tell(told)

    def _proposals(self, chosen: Sequence[int]) -> list[tuple[int, int]]:
        """Tasks and choices to try next, no more than the plan has trials left."""
        found: list[tuple[int, int]] = []
        for number in chosen:
            task = self.tasks[number]
            if number not in self._searches:
                search = Search(task.space, self.plan.seed, _BATCH)
                search.tell(task.results)
                self._searches[number] = search
            for place in self._searches[number].propose(_BATCH):
                if self._lost.get((number, place), 0) < _MOST_LOST:
                    found.append((number, place))
        left = None if self.plan.trials is None else self.plan.trials - self.trials
        return found[:left]

    def _build(self, task: Task, place: int, folder: Path) -> Build:
        folder.mkdir()
        self._seed += 1
        seed = self._seed * 1_000_003 + os.getpid()  # fresh inputs in every job
        return Build(task.workload, self._profile, task.space[place], folder, seed)

    def _builds(
        self, isolation: Isolation, jobs: Iterable[tuple[Build]]
    ) -> Iterator[tuple[int, Failure | None]]:
        """Build on all cores: the place of each in ``jobs``, and what went wrong."""
        cores = min(len(os.sched_getaffinity(0)), _MOST_BUILDS)
        limits = Limits(self.plan.build_seconds, self.plan.memory_bytes)
        yield from isolation.calls(children.build, jobs, limits, cores)

    def _while_time(self, calls: Iterable[_Call]) -> Iterator[_Call]:
        """Calls as long as there is time: the last ones may be left out."""
        return takewhile(lambda _call: not self._is_late(1.0), calls)

    def _measure(
        self,
        isolation: Isolation,
        picked: Sequence[tuple[int, int]],
        folders: dict[tuple[int, int], Path],
    ) -> None:
        """Measure candidates; where the rule's kernel was slow meanwhile, once more."""
        waiting = list(picked)
        for retries in reversed(range(_RETRIES + 1)):
            if not waiting:
                break
            again = []
            slowest = max(
                self.tasks[n].rule_seconds * (_PAIRS + _PASSES * self.tasks[n].calls)
                for n, _ in waiting
            )
            seconds = self.plan.run_seconds + _SLOWER * slowest
            calls = [(self._measurement(n, folders[n, p], _PAIRS, seconds),) for n, p in waiting]
            limits = self._place.limits(seconds, self.plan.memory_bytes)
            for order, outcome in isolation.calls(
                children.measure, self._while_time(calls), limits, self.plan.boards
            ):
                number, place = waiting[order]
                if retries and self._was_disturbed(number, outcome):
                    again.append((number, place))
                else:
                    self._settle(number, place, outcome)
            waiting = again

    def _was_disturbed(self, number: int, outcome: Timing | Failure) -> bool:
        """Whether the rule's kernel took longer than it can."""
        if isinstance(outcome, Failure):
            return False
        return median(outcome.base) > DISTURBED * self.tasks[number].rule_seconds

    def _measurement(self, number: int, folder: Path, pairs: int, seconds: float) -> Measure:
        copies = self.tasks[number].calls
        return Measure(self._bases[number], folder, self._place, copies, pairs, seconds)

    def _settle(self, number: int, place: int, outcome: Timing | Failure) -> None:
        """Record what came of a trial; what says nothing about the candidate leaves no record."""
        if isinstance(outcome, Failure) and outcome.is_lost:
            count = self._lost[number, place] = self._lost.get((number, place), 0) + 1
            self.progress.lost += 1
            self._lost_in_a_row += 1
            self._give_up_without_machines(outcome)
            self._show(f"lost a trial: {outcome.reason}")
            if outcome.is_late and count >= _MOST_LOST:
                self._record(number, place, Failure(f"{outcome.reason}, {count} times"))
        else:
            self._record(number, place, outcome)

    def _give_up_without_machines(self, last: Failure) -> None:
        if self._lost_in_a_row >= _PATIENCE * max(1, self.plan.boards):
            raise ToolchainError(
                f"the last {self._lost_in_a_row} trials were lost: {last.reason}. What was "
                f"measured before is on record; {self._place.advice}. Then start again."
            )

    def _record(self, number: int, place: int, outcome: Timing | Failure) -> None:
        task = self.tasks[number]
        is_new = place not in task.results
        record = Record(
            kernel=task.key.kernel,
            schedule=task.key.schedule,
            features=task.key.features,
            cpu=task.key.cpu,
            choice=dict(task.space[place]),
            **_outcome(outcome),
            made=int(time.time()),
            host=self._host,
        )
        self._lost_in_a_row = 0
        append(self._records, [record])
        task.add([record])
        self.progress.trials += is_new
        self._changed(self)

    def _show(self, doing: str) -> None:
        self.progress.doing = doing
        self._changed(self)


def _outcome(outcome: Timing | Failure) -> dict[str, Any]:
    """Fields of a record; times to six digits, more than any clock has."""
    if isinstance(outcome, Failure):
        return {"failure": outcome.reason}
    times = {"seconds": outcome.seconds, "rule": outcome.base}
    return {name: tuple(float(f"{t:.5e}") for t in each) for name, each in times.items()}
