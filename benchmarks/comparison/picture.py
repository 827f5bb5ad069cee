"""The comparison as bars."""

from collections.abc import Sequence
from pathlib import Path

from comparison.rows import Cell, Row
from comparison.table import title
from measuring.pictures import ACCENT, OTHER, figure, save


def draw(cells: Sequence[Cell], name: str, path: Path) -> None:
    """Bars of latency, one panel for each cell; the ratio to ours stands at each bar."""
    longest = max(len(cell.rows) for cell in cells)
    picture, panels = figure(len(cells), height=0.34 * longest + 1.1)
    for panel, cell in zip(panels, cells, strict=True):
        _bars(panel, cell)
    picture.suptitle(name, x=0.01, ha="left", fontsize=11, fontweight="bold")
    save(picture, path)


def _bars(panel, cell: Cell) -> None:
    """Logarithmic, because engines lie a thousandfold apart."""
    rows = sorted(
        (row for row in cell.rows if row.figures is not None),
        key=lambda row: row.figures.median_ms,
        reverse=True,
    )
    medians = [row.figures.median_ms / cell.batch for row in rows]
    colours = [ACCENT if row.engine.startswith("ours") else OTHER for row in rows]
    panel.barh([row.label for row in rows], medians, color=colours, height=0.7)
    panel.set_xscale("log")
    if medians:
        panel.set_xlim(min(medians) / 2, max(medians) * 8)
    for place, (row, median) in enumerate(zip(rows, medians, strict=True)):
        panel.text(median * 1.08, place, _words(row, median), va="center", fontsize=8)
    panel.set_title(title(cell), fontsize=9, loc="left")
    panel.set_xlabel("milliseconds an image, logarithmic", fontsize=8)


def _words(row: Row, median: float) -> str:
    ratio = "" if row.ratio is None or row.engine == "ours" else f"   {row.ratio:.1f}x"
    return f"{median:.3g} ms{ratio}"
