"""What ``gsb-tvm bench`` shows to people."""

from collections.abc import Sequence

from rich.table import Table

from gsb_tvm import console
from gsb_tvm.benchmark import Figures
from gsb_tvm.profiling import Breakdown, Line

_PERCENTILES = ("median", "mean", "min", "p5", "p25", "p75", "p95", "p99", "max")
_LONGEST = 32
_MEASURED = ("µs", "share", "MACs", "GMAC/s", "bytes", "of limit")


def show(figures: Figures) -> None:
    """Print the profile, where there is one, then the figures of whole runs."""
    if figures.profile is not None:
        for table in _profile(figures.profile):
            console.show(table, "")
    times = figures.latency_ms
    cells = [_time(getattr(times, name)) for name in _PERCENTILES]
    console.show(
        console.fields(_pairs(figures)),
        "",
        console.figures(("", *_PERCENTILES), [["latency", *cells]]),
    )


def _pairs(figures: Figures) -> list[tuple[str, str]]:
    memory, count = figures.memory, console.count
    gpu = figures.target.gpu
    preempted = f"{figures.preempted} preempted"
    if figures.preempted and figures.quiet_ms is not None:
        preempted += f", median of the others {_time(figures.quiet_ms)}"
    threads = f"{figures.threads} thread{'' if figures.threads == 1 else 's'}"
    parts = f" ({' + '.join(map(str, figures.batches))})" if len(figures.batches) > 1 else ""
    queued = "" if figures.queued_ms is None else f"; {_time(figures.queued_ms)} each when queued"
    how = "inputs and outputs on the GPU" if gpu else threads
    found = [
        ("model", f"{figures.model}, for {gpu or figures.target.cpu}, {count(memory.file)}B"),
        ("load", f"{_time(figures.load_ms)}, then the first run {_time(figures.first_ms)}"),
        (
            "memory",
            f"{count(memory.call)}B on the GPU for a call; {count(memory.resident)}B here in all"
            if gpu
            else f"{count(memory.added)}B for the model, {count(memory.call)}B of it for a call; "
            f"{count(memory.resident)}B in all",
        ),
        ("runs", f"{figures.runs} after {figures.warmup} to warm up, {how}; {preempted}"),
        ("rate", f"{figures.images_per_s:,.1f} images/s, {figures.images} a run{parts}{queued}"),
        ("spread", f"{figures.latency_ms.spread:.1%} of the median between the quartiles"),
    ]
    if figures.profile is not None:
        steps, whole, rest = (
            _time(us / 1e3)
            for us in (figures.profile.steps_us, figures.profile.whole_us, figures.profile.rest_us)
        )
        text = f"{len(figures.profile.steps)} steps take {steps} of {whole}; the rest {rest}"
        found.append(("profile", text))
    return found


def _profile(found: Breakdown) -> list[Table]:
    """Tables of steps, layers and kinds; the shortest last, where a terminal shows it."""
    steps = [
        [str(i), line.layer, line.kind, _short(line.shape), *_cells(line)]
        for i, line in enumerate(found.steps)
    ]
    layers = [[line.layer, str(line.steps), *_cells(line)] for line in found.layers]
    shapes = [
        [line.kind, _short(line.shape), str(line.steps), *_cells(line)] for line in found.shapes
    ]
    kinds = [[line.kind, str(line.steps), *_cells(line)] for line in found.kinds]
    return [
        console.figures(("step", "layer", "operator", "shape", *_MEASURED), steps, texts=4),
        console.figures(("layer", "steps", *_MEASURED), layers),
        console.figures(("operator", "shape", "steps", *_MEASURED), shapes, texts=2),
        console.figures(("operator", "steps", *_MEASURED), kinds),
    ]


def _short(text: str) -> str:
    """TVM names a fused kernel after all that is in it."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _cells(line: Line) -> Sequence[str]:
    return (
        f"{line.us:.1f}",
        f"{line.share:.1%}",
        "" if line.macs is None else console.count(line.macs),
        "" if line.gmacs is None else f"{line.gmacs:.0f}",
        "" if line.bytes is None else console.count(line.bytes),
        "" if line.limit is None else f"{line.limit:.2f}",
    )


def _time(milliseconds: float) -> str:
    size = abs(milliseconds)
    return f"{milliseconds:.3f} ms" if size >= 1 else f"{milliseconds * 1e3:.1f} µs"
