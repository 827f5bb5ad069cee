"""Compile PyTorch's networks into its cache, beside checks, so that timing has them at once."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.gpu.folder import DEIT_SMALL, batches
from tests.gpu.rows import Row
from tests.gpu.stages import Check

_BATCHES_FIRST = (1, 64, 256)  # what the bars are about


def units(folder: Path) -> list[str]:
    """Every compiled opponent for every batch; those that matter most first."""
    sizes = sorted(batches(folder), key=lambda size: (size not in _BATCHES_FIRST, size))
    return [
        f"{mode}, {size}" for mode in ("default", "max-autotune-no-cudagraphs") for size in sizes
    ]


def opened(_folder: Path, _wanted: Sequence[str]) -> Check:
    """Nothing is opened: PyTorch is imported by the first unit."""
    return _compile


def _compile(unit: str) -> Iterator[Row]:
    from benchmarks.gpu.opponents import OPPONENTS, mark, run_of

    mode, _, size = unit.partition(", ")
    opponent = next(each for each in OPPONENTS if each.way == mode)
    start = time.monotonic()
    run_of(opponent, int(size), DEIT_SMALL)
    mark(opponent, int(size)).touch()
    took = time.monotonic() - start
    yield Row(f"{opponent.name}, batch {size}", "figure", "", {"compiled_in_s": took})
