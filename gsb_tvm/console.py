"""Output for people: progress by phase and tables; plain lines where there is no terminal."""

import io
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gsb_tvm.progress import Silent

if TYPE_CHECKING:
    from gsb_tvm.runtime.metadata import Layer

# Wide enough for a table's rows where no terminal sets a width.
_PLAIN_WIDTH = 160


def show(*parts: RenderableType) -> None:
    """Print on standard output; colours only on a terminal and without NO_COLOR."""
    if sys.stdout.isatty():
        Console(highlight=False).print(*parts, sep="\n")
        return
    text = io.StringIO()
    Console(file=text, highlight=False, width=_PLAIN_WIDTH).print(*parts, sep="\n")
    for line in text.getvalue().splitlines():
        print(line.rstrip())


def layer_table(rows: Sequence["Layer"]) -> Table:
    """A row for each matmul-like operator."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("operator", "name", "shape", "form", "why", "kernel"):
        table.add_column(title, overflow="fold")
    for title in ("MACs", "bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        style = "green" if row.form == "packed" else "yellow"
        cells = [row.operator, row.name, " x ".join(map(str, row.shape)), row.form]
        cells += [row.reason, f"{row.kernel}, tuned" if row.is_tuned else row.kernel]
        # Text, not str: rich would take brackets in a name for its markup.
        texts = [Text(cell, style if cell is row.form else "") for cell in cells]
        table.add_row(*texts, count(row.macs), count(row.bytes))
    return table


def layer_summary(rows: Sequence["Layer"]) -> str:
    """One line that sums up the table."""
    packed = [row for row in rows if row.form == "packed"]
    macs, packed_macs = (sum(row.macs for row in part) for part in (rows, packed))
    share = f", {packed_macs / macs:.1%} of {count(macs)}MACs" if macs else ""
    return f"{len(packed)} of {len(rows)} operators packed{share}"


def fields(pairs: Sequence[tuple[str, str]]) -> Table:
    """Names and values in two columns."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), Text(value))
    return table


def figures(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> Table:
    """Rows of numbers, right-aligned, behind ``texts`` columns of text."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, title in enumerate(titles):
        table.add_column(title, justify="left" if i < texts else "right", no_wrap=i >= texts)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def count(number: float) -> str:
    """A number with a decimal prefix: 4.2 G, 75.3 M, 640."""
    for limit, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {prefix}"
    return f"{number:g} "


class Bar:
    """Observer that shows a progress bar on a terminal's stderr."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[step]:<24}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, steps: int) -> None:
        """Begin a line."""
        if self._task is not None:
            self._progress.update(self._task, completed=self._progress.tasks[self._task].total)
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(name, total=steps, step="")

    def step(self, name: str) -> None:
        """Name the step and advance the bar past the one before it."""
        if self._task is not None:
            task = self._progress.tasks[self._task]
            begun = task.completed + 1 if task.fields["step"] else task.completed
            self._progress.update(self._task, completed=begun, step=name)


class Lines:
    """Observer that prints a plain line on standard output as each phase begins."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to close."""

    def phase(self, name: str, steps: int) -> None:
        """Print it with the time since the begin."""
        print(f"{time.perf_counter() - self._start:6.1f} s  {name}", flush=True)

    def step(self, name: str) -> None:
        """Ignore it."""


class Quiet(Silent):
    """Observer that shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to close."""


def observer(*, quiet: bool) -> Bar | Lines | Quiet:
    """The observer that fits: a bar on a terminal, else lines, or nothing where ``quiet``."""
    if sys.stderr.isatty() and sys.stdout.isatty():
        return Bar()
    return Quiet() if quiet else Lines()
