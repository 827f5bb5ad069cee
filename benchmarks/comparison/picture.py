"""The comparison as bars."""

from collections.abc import Sequence
from pathlib import Path

from comparison.engines import OURS
from comparison.rows import Cell, Row
from comparison.table import milliseconds, ratio, title
from measuring.pictures import ACCENT, OTHER, figure, save

CUT = 35  # times the shortest bar: TVM as it comes is a thousandfold slower than the others


def draw(cells: Sequence[Cell], name: str, path: Path) -> None:
    """Bars of latency, one panel for each cell; the ratio to ours stands at each bar."""
    longest = max(len(cell.rows) for cell in cells)
    picture, panels = figure(len(cells), height=0.34 * longest + 1.1)
    for panel, cell in zip(panels, cells, strict=True):
        _bars(panel, cell)
    picture.suptitle(name, x=0.01, ha="left", fontsize=11, fontweight="bold")
    save(picture, path)


def _bars(panel, cell: Cell) -> None:
    """Bars in proportion to time; one far beyond the others is cut, and its words say so."""
    rows = sorted(
        (row for row in cell.rows if row.figures is not None),
        key=lambda row: row.figures.median_ms,
        reverse=True,
    )
    medians = [row.figures.median_ms / cell.batch for row in rows]
    longest = CUT * min(medians, default=1.0)
    colours = [ACCENT if row.engine.startswith("ours") else OTHER for row in rows]
    lengths = [min(median, longest) for median in medians]
    panel.barh([row.label for row in rows], lengths, color=colours, height=0.7)
    panel.set_xlim(0, 1.4 * max(lengths, default=1.0))
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        words = _words(row, medians[place], is_cut=length < medians[place])
        panel.annotate(
            words, (length, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    panel.set_title(title(cell), fontsize=9, loc="left")
    panel.set_xlabel("milliseconds an image", fontsize=8)


def _words(row: Row, median: float, *, is_cut: bool) -> str:
    words = f"{milliseconds(median)} ms"
    if row.ratio is not None and row.engine != OURS:
        words += f"   {ratio(row.ratio)}"
    return f"{words}   (bar cut)" if is_cut else words
