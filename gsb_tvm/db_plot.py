"""A picture of a file of records: how the best time of each kernel fell from trial to trial."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.runtime.outfile import check_writable, write_file
from gsb_tvm.schedules.choices import frozen
from gsb_tvm.schedules.records import Key, Record

_FORMATS = (".svg", ".png", ".pdf")
_MOST = 12  # kernels of a picture: those with the most trials
_STAMPS = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


def check_picture(path: Path) -> None:
    """Refuse what cannot be drawn before anything is read.

    Raises
    ------
    UsageError
        The picture's format is unknown.
    OutputError
        It cannot be written.
    ToolchainError
        There is no matplotlib.
    """
    if path.suffix not in _FORMATS:
        raise UsageError(f"{path}: expected a name that ends in {', '.join(_FORMATS)}.")
    check_writable(path)
    if find_spec("matplotlib") is None:
        raise ToolchainError("matplotlib is not installed. Run pip install gsb-tvm[tune].")


def best_by_trial(records: Sequence[Record]) -> list[float]:
    """The best share of the rule's time after each trial of one kernel, in the file's order.

    A trial is a choice that was not tried before; one that failed changes nothing.
    """
    ratios: dict[object, list[float]] = {}
    best: list[float] = []
    for record in records:
        choice = frozen(record.choice)
        is_new = choice not in ratios
        ratios.setdefault(choice, []).extend([record.ratio] if record.seconds else [])
        known = [median(found) for found in ratios.values() if found]
        if is_new:
            best.append(0.0)
        best[-1] = min(known, default=1.0)
    return best


def draw(records: Sequence[Record], names: Sequence[str], path: Path) -> None:
    """Draw the kernels with the most trials; ``names`` are theirs, one for each record.

    The same records give the same bytes.

    Raises
    ------
    UsageError
        There is no record.
    """
    by_key: dict[Key, list[Record]] = {}
    titles: dict[Key, str] = {}
    for record, name in zip(records, names, strict=True):
        by_key.setdefault(record.key, []).append(record)
        titles[record.key] = name
    if not by_key:
        raise UsageError("the file holds no record: there is nothing to draw.")
    lines = {key: best_by_trial(found) for key, found in by_key.items()}
    chosen = sorted(lines, key=lambda key: (-len(lines[key]), key))[:_MOST]
    data = _picture({titles[key]: lines[key] for key in chosen}, path.suffix)
    write_file(path, data)


def _picture(lines: dict[str, list[float]], suffix: str) -> bytes:
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "gsb"  # names in the file would be random without
    from matplotlib import pyplot

    picture, panel = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name, best in lines.items():
        panel.step(range(1, len(best) + 1), best, where="post", label=name[:48], linewidth=1.2)
    panel.axhline(1.0, color="#94a3b8", linewidth=0.8, linestyle="--")
    panel.set_xlabel("trial")
    panel.set_ylabel("best time, in shares of the rule's")
    panel.set_ylim(bottom=0)
    panel.legend(fontsize=7, frameon=False)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    data = io.BytesIO()
    picture.savefig(data, format=suffix[1:], dpi=150, metadata=_STAMPS[suffix])
    pyplot.close(picture)
    return data.getvalue()
