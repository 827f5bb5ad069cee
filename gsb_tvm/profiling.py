"""Where a run's time goes: by step, by layer, by kind of operator, beside the work done there."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from gsb_tvm.runtime.arrays import Array
from gsb_tvm.runtime.cuda.launch_times import LaunchTimer, units
from gsb_tvm.runtime.cuda.launching import Resident
from gsb_tvm.runtime.metadata import Program
from gsb_tvm.runtime.session import Module
from gsb_tvm.runtime.timing import Seconds
from gsb_tvm.step_work import Work

# Shortest time over which the clock's rate is taken: reading it together with Python's, once at
# each end, is uncertain by some microseconds.
_CLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Samples:
    """Seconds of whole runs (runs,), and of each step in other runs (runs, steps), in turn."""

    whole: Seconds
    steps: Seconds


def sample(module: Module, arrays: Sequence[Array], *, seconds: float, runs: int | None) -> Samples:
    """Run in turn as a user does and with a clock between the steps."""
    whole: list[float] = []
    ticks: list[Any] = []
    starts: list[float] = []
    end = time.perf_counter() + seconds
    while not whole or (time.perf_counter() < end if runs is None else len(whole) < runs):
        start = time.perf_counter()
        module.run(arrays)
        whole.append(time.perf_counter() - start)
        starts.append(time.perf_counter())
        ticks.append(module.step_ticks(arrays))
    time.sleep(max(0.0, _CLOCK_SECONDS - (time.perf_counter() - starts[0])))
    last = time.perf_counter()
    rate = (module.step_ticks(arrays)[0] - ticks[0][0]) / (last - starts[0])
    return Samples(np.array(whole), np.diff(np.array(ticks), axis=1) / rate)


def sample_launches(
    call: Resident, program: Program, *, seconds: float, runs: int | None
) -> Samples:
    """Time a program on a GPU and its launches in turn; steps that share some have equal shares."""
    parts = units(program.launches)
    shares = np.zeros((len(parts), len(program.steps)))
    for number, part in enumerate(parts):
        steps = sorted({step for launch in part for step in program.launches[launch].steps})
        shares[number, steps] = 1 / len(steps)
    timer = LaunchTimer(call, parts)
    whole: list[float] = []
    found: list[list[float]] = []
    end = time.perf_counter() + seconds
    while not whole or (time.perf_counter() < end if runs is None else len(whole) < runs):
        whole.append(timer.whole())
        found.append(timer.parts())
    return Samples(np.array(whole), np.array(found) @ shares)


class Line(msgspec.Struct, frozen=True):
    """One step, or several: microseconds a run, and the share of the whole run.

    Names are empty where several steps do not have one in common.

    Attributes
    ----------
    steps
        How many there are.
    macs, gmacs
        Multiply-accumulates of those that have any, and 10**9 of them a second of all their time.
    bytes
        Read and written; None where that is not known of every step.
    limit
        Time that the work would take at the limit, as a share of the time of those steps that
        have a limit.
    """

    layer: str
    kind: str
    shape: str
    kernel: str
    steps: int
    us: float
    share: float
    macs: int | None
    bytes: int | None
    gmacs: float | None
    limit: float | None


class Breakdown(msgspec.Struct, frozen=True):
    """A run in parts; medians.

    Attributes
    ----------
    whole_us, steps_us, rest_us
        A run as a user starts it, the sum of its steps, and what is in none of them: Python, the
        start of the threads, copies of the outputs. On a GPU, a run by its clock; steps are timed
        one by one there, so that what lies between them may be less than nothing.
    steps, layers, shapes, kinds
        Each step in order; sums by layer, by kind and shape, by kind.
    """

    runs: int
    whole_us: float
    steps_us: float
    rest_us: float
    steps: tuple[Line, ...]
    layers: tuple[Line, ...]
    shapes: tuple[Line, ...]
    kinds: tuple[Line, ...]


def breakdown(
    program: Program, works: Sequence[Work], samples: Samples, ideal: Sequence[float | None]
) -> Breakdown:
    """Sum up; ``ideal`` holds the seconds each step would take at its limit, None without one."""
    seconds = np.median(samples.steps, axis=0)
    whole = float(np.median(samples.whole))
    parts = [
        _Part(step.layer, work, step.kernel, float(time_s), best)
        for step, work, time_s, best in zip(program.steps, works, seconds, ideal, strict=True)
    ]
    total = float(seconds.sum())

    def lines(key: Callable[[_Part], Any]) -> list[Line]:
        groups: dict[Any, list[_Part]] = {}
        for part in parts:
            groups.setdefault(key(part), []).append(part)
        return [_line(group, whole) for group in groups.values()]

    return Breakdown(
        len(samples.whole),
        whole * 1e6,
        total * 1e6,
        (whole - total) * 1e6,
        steps=tuple(_line([part], whole) for part in parts),
        layers=tuple(lines(lambda part: part.layer)),
        shapes=tuple(_by_time(lines(lambda part: (part.work.kind, part.work.shape)))),
        kinds=tuple(_by_time(lines(lambda part: part.work.kind))),
    )


def _by_time(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: -line.us)


@dataclass(frozen=True)
class _Part:
    layer: str
    work: Work
    kernel: str
    seconds: float
    ideal: float | None


def _line(parts: Sequence[_Part], whole: float) -> Line:
    seconds = sum(part.seconds for part in parts)
    macs = [part.work.macs for part in parts if part.work.macs is not None]
    sizes = [part.work.bytes for part in parts if part.work.bytes is not None]
    limited = [(part.ideal, part.seconds) for part in parts if part.ideal is not None]
    limited_s = sum(time_s for _, time_s in limited)
    return Line(
        layer=_common(part.layer for part in parts),
        kind=_common(part.work.kind for part in parts),
        shape=_common(part.work.shape for part in parts),
        kernel=_common(part.kernel for part in parts),
        steps=len(parts),
        us=seconds * 1e6,
        share=seconds / whole,
        macs=sum(macs) if macs else None,
        bytes=sum(sizes) if len(sizes) == len(parts) else None,
        gmacs=sum(macs) / seconds / 1e9 if macs and seconds else None,
        limit=sum(best for best, _ in limited) / limited_s if limited_s else None,
    )


def _common(names: Iterable[str]) -> str:
    """The name that all have, or nothing."""
    found = set(names)
    return found.pop() if len(found) == 1 else ""
