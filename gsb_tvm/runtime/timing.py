"""Times of many runs of one call, and what is told of them."""

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Runs:
    """What was seen of each run, in order.

    Attributes
    ----------
    seconds
        Wall time, (runs,) float64.
    preempted
        Whether Linux gave a core of this process to somebody else meanwhile, (runs,) bool: it
        counted an involuntary context switch.
    """

    seconds: Seconds
    preempted: NDArray[np.bool_]


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds of a run: percentiles p5 to p99 and extremes.

    ``spread`` is the distance between the quartiles as a share of the median.
    """

    median: float
    mean: float
    min: float
    p5: float
    p25: float
    p75: float
    p95: float
    p99: float
    max: float
    spread: float


def timed(call: Callable[[], object], *, seconds: float, runs: int | None = None) -> Runs:
    """Time ``runs`` calls, or, without a number, as many as begin within ``seconds``; at least one.

    Nothing is left out: a user who cares about the slowest run wants to see it.
    """
    times: list[float] = []
    preempted: list[bool] = []
    end = time.perf_counter() + seconds
    while not times or (time.perf_counter() < end if runs is None else len(times) < runs):
        before = _switches()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        preempted.append(_switches() != before)
    return Runs(np.array(times), np.array(preempted))


def latency(seconds: Seconds) -> Latency:
    """Summary of the times (runs,) float64 of at least one run."""
    milliseconds = seconds * 1e3
    p5, p25, median, p75, p95, p99 = (
        float(x) for x in np.percentile(milliseconds, [5, 25, 50, 75, 95, 99])
    )
    return Latency(
        median=median,
        mean=float(milliseconds.mean()),
        min=float(milliseconds.min()),
        p5=p5,
        p25=p25,
        p75=p75,
        p95=p95,
        p99=p99,
        max=float(milliseconds.max()),
        spread=(p75 - p25) / median,
    )


def resident_bytes() -> int:
    """Memory of this process that is in RAM (proc(5), statm: the second number, in pages)."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return pages * resource.getpagesize()


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
