"""What a stage finds out, a line of JSON each, written as soon as it is known."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

Verdict = Literal["ok", "failed", "skipped", "figure"]


class Row(msgspec.Struct, frozen=True):
    """A finding: a check and how it ended, or a figure.

    ``figures`` are in the unit that their names end in; ``text`` is for people.
    """

    name: str
    verdict: Verdict
    text: str = ""
    figures: dict[str, float | int | str] = {}


def unable(name: str, err: Exception) -> Row:
    """An engine that is compared cannot run here, which is no fault of ours."""
    return Row(name, "skipped", f"{type(err).__name__}: {str(err)[:200]}")


class Begun(msgspec.Struct, frozen=True, tag=True):
    """What a stage is about to do; where it ends there, this is the last line."""

    unit: str


class Found(msgspec.Struct, frozen=True, tag=True):
    """What came of a unit so far."""

    row: Row


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A unit that is done."""

    unit: str


Line = Begun | Found | Ended


class StageResult(msgspec.Struct, frozen=True):
    """All of a stage."""

    name: str
    seconds: float
    rows: tuple[Row, ...]

    def count(self, verdict: Verdict) -> int:
        """Rows of a verdict."""
        return sum(row.verdict == verdict for row in self.rows)


def append(path: Path, line: Line) -> None:
    """Add a line to a file."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def read(path: Path) -> tuple[list[Row], str]:
    """All rows of a file, and the unit that was begun and came to no end, or ""."""
    found: list[Row] = []
    left = ""
    for line in _lines(path):
        if isinstance(line, Found):
            found.append(line.row)
        else:
            left = line.unit if isinstance(line, Begun) else ""
    return found, left


def begun(path: Path) -> set[str]:
    """Units of a file that were begun."""
    return {line.unit for line in _lines(path) if isinstance(line, Begun)}


def _lines(path: Path) -> Iterator[Line]:
    for line in path.read_bytes().splitlines():
        try:
            yield msgspec.json.decode(line, type=Line)
        except msgspec.DecodeError:
            return  # the last one, cut where the process ended


def table(rows: Iterable[Row]) -> str:
    """Rows for people; what is only ok is counted."""
    every: Sequence[Row] = list(rows)
    right = sum(row.verdict == "ok" for row in every)
    lines = [f"  {right} ok"] if right else []
    for row in every:
        if row.verdict == "ok" and not row.text:
            continue
        figures = "  ".join(f"{name} {_number(value)}" for name, value in row.figures.items())
        mark = "" if row.verdict == "figure" else f"{row.verdict.upper()} "
        lines.append(f"  {mark}{row.name}: {'  '.join(filter(None, [figures, row.text]))}")
    return "\n".join(lines)


def _number(value: float | int | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
