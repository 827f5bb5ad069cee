"""Panels in one style. matplotlib is imported here, where a picture was asked for."""

from pathlib import Path
from typing import Any

ACCENT, OTHER = "#c2410c", "#94a3b8"
_WIDTH = 7.5


def figure(panels: int, height: float) -> tuple[Any, list[Any]]:
    """Return a figure with panels below each other, each ``height`` inches high."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "gsb"  # names in the file would be random without
    from matplotlib import pyplot

    picture, grid = pyplot.subplots(
        panels, 1, figsize=(_WIDTH, height * panels + 0.3), squeeze=False, layout="constrained"
    )
    for panel in grid[:, 0]:
        panel.tick_params(labelsize=8)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return picture, list(grid[:, 0])


def save(picture: Any, path: Path) -> None:
    """Write the file; the same figures give the same bytes."""
    stamps = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    picture.savefig(path, dpi=150, metadata=stamps[path.suffix])
