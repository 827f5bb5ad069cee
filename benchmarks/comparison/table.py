"""A cell of the comparison as a table for people."""

import math

from rich.table import Table
from rich.text import Text

from comparison.rows import Cell, Row

_TITLES = (
    "ms",
    "quartiles",
    "best",
    "an image",
    "ratio",
    "quiet",
    "disk MB",
    "peak MB",
    "cold s",
    "made s",
    "outputs",
)
_ABSENT = "–"


def title(cell: Cell) -> str:
    """One line about the cell."""
    threads = f"{cell.threads} thread{'s' if cell.threads > 1 else ''}"
    held = "" if cell.isa == "native" else f", held to {cell.isa}"
    return f"batch {cell.batch}, {threads}{held}, ours for {cell.target}"


def table(cell: Cell) -> Table:
    """A row for each engine; one that did not run says why."""
    found = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    found.add_column("engine", no_wrap=True)
    for name in _TITLES:
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("remarks", overflow="fold")
    for row in cell.rows:
        if row.figures is None:
            blank = [_ABSENT] * len(_TITLES)
            found.add_row(row.label, *blank, Text(f"not run: {row.not_run}"), style="dim")
        else:
            found.add_row(row.label, *_cells(row, cell.batch), Text(row.note))
    return found


def _cells(row: Row, batch: int) -> list[str]:
    figures = row.figures
    return [
        milliseconds(figures.median_ms),
        f"{milliseconds(figures.low_ms)}..{milliseconds(figures.high_ms)}",
        milliseconds(figures.best_ms),
        milliseconds(figures.median_ms / batch),
        _ABSENT if row.ratio is None else ratio(row.ratio),
        f"{figures.quiet}/{figures.runs}",
        f"{row.size_mb:.1f}",
        f"{row.rss_mb:.0f}",
        f"{sorted(row.cold_s)[len(row.cold_s) // 2]:.2f}" if row.cold_s else _ABSENT,
        f"{row.prepare_s:.1f}",
        outputs(row),
    ]


def milliseconds(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.{max(0, 2 - int(math.log10(value))) if value >= 1 else 3}f}"


def ratio(value: float) -> str:
    """How many times as long as ours."""
    return f"{value:.0f}x" if value >= 100 else f"{value:.1f}x"


def outputs(row: Row) -> str:
    """What is known of an engine's outputs, in few letters."""
    if row.verified is not None:
        found = row.verified
        counts = f"{found.exact} of {found.samples} exact"
        return counts if found.verdict == "ok" else f"{found.verdict.upper()}, {counts}"
    return _ABSENT if row.difference is None else f"{row.difference:.1e}"


LEGEND = (
    "ms: median of a call, of runs without preemption where there are enough; quiet: how many of "
    "all runs were so. peak: memory of the engine's process, Python and its packages included. "
    "cold: start of that process to its first result. made: quantising or compiling beforehand. "
    "outputs: largest difference to ONNX Runtime's float output over its largest; for the compiled "
    "binary model, samples equal to ONNX Runtime on the folded model (gsb_tvm/runtime/verify.py)."
)
