"""What a tuning job shows: a live table on a terminal, else plain lines; a report at the end."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from gsb_tvm import command, console
from gsb_tvm.dialect.specs import decode
from gsb_tvm.schedules.choices import Choice, text_of
from gsb_tvm.step_work import Work, packed_work
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.search import has_cost_model
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.workloads import Packed

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from gsb_tvm.tuning.tuner import Tuner

_REFRESHES = 4  # of the live table, a second
_GLANCE = (17, 21)  # columns of a name and a shape there
_GAIN = 1.01  # over what was said last that is worth a line


@dataclass(frozen=True)
class Row:
    """One kernel.

    Attributes
    ----------
    calls
        In a run of the model.
    trials, choices
        How many of its choices have been tried, and how many there are.
    failed
        How many of them must not be used.
    rule_us, best_us
        A call's time by rule and at best, microseconds; None before it was measured.
    gain
        One over the other.
    share
        Of the time of all kernels, at best.
    of_limit
        Time that its work would take at the machine's limit, as a share of its best time; None
        where there is no limit to hold it against.
    choice
        The best, as text; empty for the rule's.
    changes
        What of it differs from the rule's.
    """

    name: str
    shape: str
    calls: int
    trials: int
    choices: int
    failed: int
    rule_us: float | None
    best_us: float | None
    gain: float
    share: float | None
    of_limit: float | None
    choice: str
    changes: str

    def as_dict(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """What a job came to; times in milliseconds of a run of the model, its tuned kernels alone."""

    rows: tuple[Row, ...]
    trials: int
    new: int
    failed: int
    lost: int
    rule_ms: float
    best_ms: float
    notes: tuple[str, ...]

    @property
    def trials_text(self) -> str:
        """Trials for people."""
        lost = f", {self.lost} lost" if self.lost else ""
        return f"{self.trials}, {self.new} of them new; {self.failed} failed{lost}"


def report(tuner: "Tuner", view: "View", notes: Sequence[str] = ()) -> Report:
    """The report of a job as it stands; ``notes`` are what was found before."""
    tasks = tuner.tasks
    measured = [task for task in tasks if task.rule_times]
    search = "XGBoost is not installed: candidates were ranked at random. pip install gsb-tvm[tune]"
    return Report(
        tuple(_rows(tasks, view.ideals)),
        tuner.trials,
        tuner.progress.trials,
        sum(len(task.failures) for task in tasks),
        tuner.progress.lost,
        1e3 * sum(task.calls * task.rule_seconds for task in measured),
        1e3 * sum(task.calls * task.best_seconds for task in measured),
        (*notes, *([] if has_cost_model() else [search])),
    )


def _rows(tasks: Sequence[Task], ideals: "Ideals") -> Iterator[Row]:
    measured = [task for task in tasks if task.rule_times]
    total = sum(task.calls * task.best_seconds for task in measured)
    for task in tasks:
        is_known = bool(task.rule_times)
        ideal = ideals.seconds(task)
        yield Row(
            task.name,
            task.shape,
            task.calls,
            task.trials,
            len(task.space),
            len(task.failures),
            task.rule_seconds * 1e6 if is_known else None,
            task.best_seconds * 1e6 if is_known else None,
            task.gain,
            task.calls * task.best_seconds / total if is_known else None,
            ideal / task.best_seconds if is_known and ideal is not None else None,
            text_of(task.space[task.best]) if task.best else "",
            _changes(task),
        )


def _changes(task: Task) -> str:
    """Parameters of the best choice that differ from the rule's."""
    rule, best = task.space[0], task.space[task.best]
    return text_of({n: v for n, v in best.items() if rule.get(n) != v}) if task.best else ""


def table(rows: Sequence[Row]) -> "RenderableType":
    """Rows for people; without a column for limits where none is known."""
    titles = [
        "kernel",
        "shape",
        "choice",
        "calls",
        "trials",
        "rule µs",
        "best µs",
        "gain",
        "share",
        "of limit",
    ]
    cells = [
        [
            row.name,
            row.shape,
            row.changes or ("as by rule" if row.best_us is not None else ""),
            str(row.calls),
            f"{row.trials}/{row.choices}",
            _number(row.rule_us),
            _number(row.best_us),
            f"{row.gain:.2f}x" if row.best_us is not None else "",
            "" if row.share is None else f"{row.share:.0%}",
            "" if row.of_limit is None else f"{row.of_limit:.0%}",
        ]
        for row in rows
    ]
    if all(row.of_limit is None for row in rows):
        titles, cells = titles[:-1], [each[:-1] for each in cells]
    return console.figures(titles, cells, texts=3)


def _glance(rows: Sequence[Row]) -> "RenderableType":
    """Rows without their choices, a line each on a terminal of 80 columns."""
    made = console.figures(
        ("kernel", "shape", "trials", "rule µs", "best µs", "gain", "share"),
        [
            [
                row.name,
                row.shape,
                f"{row.trials}/{row.choices}",
                _number(row.rule_us),
                _number(row.best_us),
                f"{row.gain:.2f}x" if row.best_us is not None else "",
                "" if row.share is None else f"{row.share:.0%}",
            ]
            for row in rows
        ],
        texts=2,
    )
    for column, width in zip(made.columns, _GLANCE, strict=False):
        column.no_wrap, column.max_width = True, width
    return made


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


@dataclass
class Ideals:
    """What the machine could do at best, where it is this one."""

    by_limit: dict[Any, float] = field(default_factory=dict)

    def seconds(self, task: Task) -> float | None:
        """Seconds of a call at the limit of what its best choice counts with."""
        work = _work(task, task.space[task.best])
        if work is None or work.limit not in self.by_limit:
            return None
        return work.amount / self.by_limit[work.limit]


def _work(task: Task, choice: Choice) -> Work | None:
    """Work of a packed operator, by what its kernel of a choice counts with."""
    if not isinstance(task.workload, Packed):
        return None
    method = choice.get("method")  # of dense layers only
    return packed_work(decode(task.workload.kernel), f"dense_{method}" if method else task.name)


def _ideals(tasks: Sequence[Task], profile: Profile) -> Ideals:
    """Time the loops that kernels are held against, those of all methods."""
    from gsb_tvm.limits import prepared

    methods = [{choice.get("method"): choice for choice in task.space} for task in tasks]
    found = (
        _work(task, choice)
        for task, choices in zip(tasks, methods, strict=True)
        for choice in choices.values()
    )
    works = {work for work in found if work is not None}
    limits = prepared(works, profile, 1)
    limits.measure()
    return Ideals(dict(limits.rates))


class View:
    """What is shown while a job runs."""

    def __init__(self, ideals: Ideals) -> None:
        self.ideals = ideals

    def changed(self, tuner: "Tuner") -> None:
        """Show what is new, or nothing."""


class _Lines(View):
    """A plain line for each progress that is worth one."""

    def __init__(self, ideals: Ideals) -> None:
        super().__init__(ideals)
        self._start = time.monotonic()
        self._said: dict[int, float] = {}

    def changed(self, tuner: "Tuner") -> None:
        """Print what is new."""
        passed = time.monotonic() - self._start
        for number, task in enumerate(tuner.tasks):
            if not task.rule_times:
                continue
            before = self._said.get(number)
            if before is not None and task.gain < before * _GAIN:
                continue
            self._said[number] = task.gain
            what = f"{task.rule_seconds * 1e6:.1f} µs by rule"
            if before is not None:
                what = f"{task.best_seconds * 1e6:.1f} µs, {task.gain:.2f}x the rule"
            line = f"{passed:6.1f} s  trial {tuner.trials}: {task.name} {task.shape}: {what}"
            command.require_stdout(partial(print, line))


class _Live(View):
    """A table on the terminal, drawn anew as it changes."""

    def __init__(self, ideals: Ideals, terminal: "Console") -> None:
        super().__init__(ideals)
        from rich.live import Live

        self._tuner: Tuner | None = None
        self._rows: tuple[Row, ...] = ()
        self.live = Live(
            get_renderable=self._drawn,
            console=terminal,
            refresh_per_second=_REFRESHES,
            transient=True,
        )

    def changed(self, tuner: "Tuner") -> None:
        """Remember what to draw: the thread that draws must not look while tasks change."""
        self._rows = tuple(_rows(tuner.tasks, self.ideals))
        self._tuner = tuner

    def _drawn(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        tuner = self._tuner
        if tuner is None:
            return Text("preparing")
        left = tuner.seconds_left
        eta = "" if left is None else f", {_duration(left)} to go"
        status = f"trial {tuner.trials}{eta}: {tuner.progress.doing}"
        # The table last: of what is higher than the terminal rich shows the first lines.
        return Group(Text(status), Text(""), _glance(self._rows))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def watched(
    tasks: Sequence[Task], profile: Profile, *, is_here: bool, is_quiet: bool
) -> Iterator[View]:
    """The view that fits: a live table on a terminal, else lines, or nothing where ``is_quiet``."""
    # Limits are known of the CPU here alone: not of boards, not of GPUs.
    ideals = _ideals(tasks, profile) if is_here and profile.gpu is None else Ideals()
    if sys.stderr.isatty() and sys.stdout.isatty():
        from rich.console import Console

        live = _Live(ideals, Console(stderr=True))
        with live.live:
            yield live
    else:
        yield View(ideals) if is_quiet else _Lines(ideals)
