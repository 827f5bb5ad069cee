"""A sweep as a table and as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from growth.timing import Measured
from measuring.pictures import ACCENT, OTHER, figure, save

_TITLES = ("ms", "quartiles", "GMAC", "µs a GMAC", "time", "work", "quiet")


def value_of(axis: str, each: Measured) -> int:
    """What is told of an axis: tokens for image sizes."""
    return each.tokens if axis == "image" else each.point[axis]


def name_of(axis: str) -> str:
    """Its name for people."""
    return "tokens" if axis == "image" else axis


def table(sweeps: Mapping[str, Sequence[Measured]]) -> Table:
    """A row for each network; "time" and "work" are in multiples of the first of its axis."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column("varied", no_wrap=True)
    for name in ("value", *_TITLES):
        found.add_column(name, justify="right", no_wrap=True)
    for axis, line in sweeps.items():
        for place, each in enumerate(line):
            name = name_of(axis) if place == 0 else ""
            found.add_row(name, str(value_of(axis, each)), *_cells(each, line[0]))
    return found


def _cells(each: Measured, first: Measured) -> list[str]:
    times = each.figures
    return [
        f"{times.median_ms:.3f}",
        f"{times.low_ms:.3f}..{times.high_ms:.3f}",
        f"{each.macs / 1e9:.3f}",
        f"{each.us_per_gmac:.0f}",
        f"{times.median_ms / first.figures.median_ms:.2f}x",
        f"{each.macs / first.macs:.2f}x",
        f"{times.quiet}/{times.runs}",
    ]


def draw(sweeps: Mapping[str, Sequence[Measured]], title: str, path: Path) -> None:
    """A panel for each axis: time, and what it would be if it grew as the work does."""
    picture, panels = figure(len(sweeps), height=1.9)
    for panel, (axis, line) in zip(panels, sweeps.items(), strict=True):
        _line(panel, axis, line)
    panels[0].legend(fontsize=8, frameon=False)
    picture.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    save(picture, path)


def _line(panel: Any, axis: str, line: Sequence[Measured]) -> None:
    values = [value_of(axis, each) for each in line]
    times = [each.figures.median_ms for each in line]
    work = [times[0] * each.macs / line[0].macs for each in line]
    panel.plot(values, work, "--", color=OTHER, label="in proportion to the work")
    panel.plot(values, times, "o-", color=ACCENT, label="measured")
    for value, time in zip(values, times, strict=True):
        panel.annotate(
            f"{time:.2f}", (value, time), (0, 6), textcoords="offset points", fontsize=8, ha="right"
        )
    panel.set_ylim(0, max(times + work) * 1.2)
    panel.set_xticks(values)
    panel.set_xlabel(name_of(axis), fontsize=8)
    panel.set_ylabel("ms", fontsize=8)
