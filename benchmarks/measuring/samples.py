"""Times of many runs, and what is told of them."""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# Fewer undisturbed runs than this are too few for a median; then all runs count.
ENOUGH_QUIET = 5


@dataclass(frozen=True)
class Figures:
    """What is told of a series of runs, in milliseconds a call.

    Attributes
    ----------
    runs, quiet
        How many there were, and in how many of them no other process was given the core.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    best_ms: float
    runs: int
    quiet: int


def figures(every: Sequence[float], quiet: Sequence[float]) -> Figures:
    """Median, quartiles and best of the quiet runs, or of all where too few were quiet."""
    counted = quiet if len(quiet) >= ENOUGH_QUIET else every
    low, median, high = (float(x) for x in np.percentile(counted, [25, 50, 75]))
    return Figures(median, low, high, float(min(counted)), len(every), len(quiet))


def timed(run: Callable[[], object], seconds: float, most: int) -> tuple[list[float], list[float]]:
    """Milliseconds of every run, and of the quiet ones: at least one, until ``seconds`` are over.

    A run is quiet when the kernel has counted no involuntary context switch of this process.
    """
    every: list[float] = []
    quiet: list[float] = []
    end = time.perf_counter() + seconds
    while not every or (len(every) < most and time.perf_counter() < end):
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        start = time.perf_counter_ns()
        run()
        every.append((time.perf_counter_ns() - start) / 1e6)
        if resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw == switches:
            quiet.append(every[-1])
    return every, quiet
