"""Two choices of a kernel, timed in turn; and tasks that begin with the rule of another CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gsb_tvm.dialect.specs import decode
from gsb_tvm.runtime.outfile import scratch_folder
from gsb_tvm.schedules import families
from gsb_tvm.schedules.choices import Choice, Value
from gsb_tvm.targets import Profile
from gsb_tvm.tuning import children
from gsb_tvm.tuning.children import Build, Measure
from gsb_tvm.tuning.isolation import Failure, Isolation, Limits
from gsb_tvm.tuning.machines import Here
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.workloads import Packed, Workload, key

_LIMITS = Limits(seconds=300, memory_bytes=4 << 30)
_PAIRS = 151
_ROOM = 256 << 20


@dataclass(frozen=True)
class Misjudged(Packed):
    """A packed operator whose first choice is by the rule of another CPU."""

    other: Profile | None = None

    def space(self, profile: Profile) -> tuple[dict[str, Value], ...]:
        """The other CPU's choice, then all others of this one."""
        assert self.other is not None
        poor = families.rule(decode(self.kernel), self.other)
        return (poor, *(choice for choice in super().space(profile) if choice != poor))


def misjudged(tasks: Sequence[Task], profile: Profile, other: Profile) -> list[Task]:
    """Tasks of packed operators that begin with the other CPU's rule."""
    found = []
    for task in tasks:
        if isinstance(task.workload, Packed):
            workload = Misjudged(task.workload.kernel, other)
            found.append(fresh(task, workload, profile))
    return found


def fresh(task: Task, workload: Workload, profile: Profile) -> Task:
    """The task as nobody has tuned it."""
    space = workload.space(profile)
    return Task(workload, task.name, task.shape, task.calls, key(workload, profile), space)


@dataclass(frozen=True)
class Pair:
    """A choice to hold against another, of one task."""

    task: Task
    base: Choice
    choice: Choice


def ratios(pairs: Sequence[Pair], profile: Profile) -> list[float]:
    """Time of each pair's base over that of its choice, the median of many in turn."""
    with scratch_folder(_ROOM) as folder, Isolation() as isolation:
        return [_ratio(isolation, pair, profile, folder / str(n)) for n, pair in enumerate(pairs)]


def _ratio(isolation: Isolation, pair: Pair, profile: Profile, folder: Path) -> float:
    if pair.base == pair.choice:
        return 1.0
    folders = [folder / "base", folder / "choice"]
    for number, (each, choice) in enumerate(zip(folders, (pair.base, pair.choice), strict=True)):
        each.mkdir(parents=True)
        job = Build(pair.task.workload, profile, choice, each, number)
        _need(isolation.call(children.build, [job], _LIMITS))
    measure = Measure(folders[0], folders[1], Here(), pair.task.calls, _PAIRS, _LIMITS.seconds)
    return 1 / _need(isolation.call(children.measure, [measure], _LIMITS)).ratio


def _need(outcome: object) -> children.Timing:
    if isinstance(outcome, Failure):
        raise RuntimeError(outcome.reason)
    return outcome  # type: ignore[return-value]


def plain(task: Task) -> Task:
    """The task with its rule's own order of choices again."""
    return replace(task, workload=Packed(task.workload.kernel))
