"""Figures as tables for people."""

from collections.abc import Sequence

from rich.table import Table

from counting.loops import Loop
from counting.records import Figure
from counting.steps import Row

_ABSENT = "–"
_MIX = 8  # mnemonics
_NAME = 32  # letters of a kernel's name; TVM strings those of fused operators together


def _table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in words:
        found.add_column(name, no_wrap=True)
    for name in numbers:
        found.add_column(name, justify="right", no_wrap=True)
    return found


def engines(figures: Sequence[Figure]) -> Table:
    """A row for each model and engine; the first is ours."""
    found = _table(("model", "engine"), ("instructions", "ratio"))
    for each in figures:
        ratio = f"{each.instructions / figures[0].instructions:.2f}x"
        found.add_row(each.model, each.engine, f"{each.instructions:,}", ratio)
    return found


def kernels(rows: Sequence[Row], kinds: Sequence[Row], whole: int) -> Table:
    """A row for each kernel, then for each kind of operator."""
    found = _table(
        ("kernel", "shape"), ("calls", "instructions", "share", "a call", "MAC/instruction")
    )
    for row in rows:
        shape = row.shape if row.shape != row.kernel else ""
        found.add_row(_short(row.kernel), shape, *_cells(row, whole))
    found.add_section()
    for row in kinds:
        found.add_row(f"all {row.kind}", "", *_cells(row, whole))
    return found


def _cells(row: Row, whole: int) -> list[str]:
    return [
        str(row.calls),
        f"{row.instructions:,}",
        f"{row.instructions / whole:.1%}",
        f"{row.instructions // row.calls:,}",
        _rate(row.rate),
    ]


def _rate(value: float | None) -> str:
    return f"{value:.2f}" if value else _ABSENT


def predictions(
    found: Sequence[tuple[Row, Loop, dict[str, float | None]]], cpus: Sequence[str], whole: int
) -> Table:
    """A row for each piece of straight code; cycles are predictions."""
    table = _table(("kernel", "shape"), ("share", "length", "MAC/instruction", *cpus))
    for row, loop, cycles in found:
        numbers = [f"{loop.instructions / whole:.1%}", str(len(loop.lines)), _rate(loop.rate)]
        numbers += [_cycles(cycles.get(cpu), loop.products) for cpu in cpus]
        table.add_row(_short(row.kernel), row.shape, *numbers)
    return table


def mixes(found: Sequence[tuple[Row, Loop, dict[str, float | None]]]) -> str:
    """A line for each piece of straight code: its most frequent instructions."""
    return "\n".join(
        f"{_short(row.kernel)}, {len(loop.lines)} instructions: "
        + ", ".join(f"{count} {name}" for name, count in loop.mix.most_common(_MIX))
        for row, loop, _ in found
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _cycles(cycles: float | None, products: int) -> str:
    if cycles is None:
        return _ABSENT
    return f"{cycles:.0f}" + (f" ({products / cycles:.1f})" if products else "")


PREDICTED = (
    "Predicted by llvm-mca, not measured: cycles of one time through and, where bits are counted, "
    "multiply-accumulates a cycle. It knows no caches, and has one model for several cores."
)
