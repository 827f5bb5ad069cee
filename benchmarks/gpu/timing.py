"""Timing in turn, A B C, A B C, so that all see the same clocks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.gpu.events import Clock

Run = Callable[[], object]
"""Sends work to the clock's stream."""


@dataclass(frozen=True)
class Figures:
    """Seconds of a run: median and quartiles over rounds."""

    median: float
    low: float
    high: float


def figures(samples: list[float]) -> Figures:
    """What is told of seconds."""
    low, median, high = (float(x) for x in np.percentile(samples, [25, 50, 75]))
    return Figures(median, low, high)


def compared(
    clock: Clock, runs: Mapping[str, Run], *, rounds: int, seconds: float
) -> dict[str, Figures]:
    """Seconds of each run; in each round each is run again and again for about ``seconds``."""
    times = {name: clock.calibrated(run, seconds) for name, run in runs.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(clock.seconds(run, times[name]))
    return {name: figures(found) for name, found in samples.items()}
