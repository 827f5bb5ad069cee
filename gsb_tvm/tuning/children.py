"""What the processes of :mod:`gsb_tvm.tuning.isolation` do: build a candidate, measure one.

A candidate is a folder: the kernel, and samples of inputs and outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tvm  # noqa: F401  (imported once, before processes are forked)

from gsb_tvm.runtime.kernel_library import kernel_in, write_kernel
from gsb_tvm.schedules.choices import Choice
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.isolation import TrialError
from gsb_tvm.tuning.machines import Array, Function, Machine, Place
from gsb_tvm.tuning.samples import Sample, disagreement
from gsb_tvm.tuning.workloads import Workload

_SAMPLES = {"zeros.npz": True, "plain.npz": False}
_TIMED = "plain.npz"
_MOST_CALLS = 1000  # of a timing
_FEWEST = 3  # timings after which a candidate may be given up
_HOPELESS = 2.0  # times the rule's time: no need to know exactly
_SPELL = 0.0005  # seconds of a timing: long beside a clock, short beside what disturbs
_MOST_BYTES = 64 << 20  # of copies of a kernel's arguments


@dataclass(frozen=True)
class Build:
    """A candidate to build in ``folder``; its samples are drawn by ``seed``."""

    workload: Workload
    profile: Profile
    choice: Choice
    folder: Path
    seed: int


@dataclass(frozen=True)
class Measure:
    """A candidate to check and time, in turn with the rule's kernel.

    Attributes
    ----------
    base, candidate
        Folders of the two.
    place
        Where.
    copies
        How many sets of arguments are used in turn, so that constants come from where they come
        from in a model of so many layers.
    pairs
        How many timings of each.
    seconds
        What all of it may take on the machine.
    """

    base: Path
    candidate: Path
    place: Place
    copies: int
    pairs: int
    seconds: float


@dataclass(frozen=True)
class Timing:
    """Seconds of a call, and of the rule's kernel at the same moments."""

    seconds: tuple[float, ...]
    base: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of the candidate's time as a share of the rule's."""
        return median(a / b for a, b in zip(self.seconds, self.base, strict=True))


def build(job: Build) -> None:
    """Compile a candidate and draw what it is checked on."""
    function = job.workload.function(job.profile, job.choice)
    write_kernel(function, job.profile, job.folder)
    rng = np.random.default_rng(job.seed)
    for name, zeros in _SAMPLES.items():
        _write(job.folder / name, job.workload.sample(job.profile, job.choice, rng, zeros=zeros))


def measure(job: Measure) -> Timing:
    """Check a candidate and time it.

    Raises
    ------
    TrialError
        It computes something else than it should, on any call, or writes where it must not.
    TrialLost
        The machine went away.
    """
    with job.place.open(job.seconds) as machine:
        candidate = machine.load(kernel_in(job.candidate))
        for name in _SAMPLES:
            _check(machine, candidate, _read(job.candidate / name))
        plain = _read(job.candidate / _TIMED)
        sets = _sets(machine, plain, job.copies)
        if job.base == job.candidate:
            times = _times(machine, [(candidate, sets)], job.pairs)
            timing = Timing(tuple(times[0]), tuple(times[0]))
        else:
            base = machine.load(kernel_in(job.base))
            base_sets = _sets(machine, _read(job.base / _TIMED), job.copies)
            pair = [(base, base_sets), (candidate, sets)]
            before, after = _times(machine, pair, job.pairs)
            timing = Timing(tuple(after), tuple(before))
        for arguments in sets:  # what was right once may not be so each time
            candidate(*arguments)
            _compare(machine, plain, arguments)
        return timing


def _check(machine: Machine, function: Function, sample: Sample) -> None:
    """Run a kernel on a sample; its outputs hold something else before."""
    (arguments,) = _sets(machine, sample, 1)
    function(*arguments)
    _compare(machine, sample, arguments)


def _sets(machine: Machine, sample: Sample, copies: int) -> list[list[Any]]:
    """Arguments of calls: constants of their own, live tensors in common, which stay in cache."""
    constants = [n for n in range(len(sample.inputs)) if n not in sample.live]
    size = sum(sample.inputs[n].nbytes for n in constants)
    count = max(1, min(copies, _MOST_BYTES // max(size, 1)))
    outputs = [out + 1 if out.dtype.kind == "f" else ~out for out in sample.outputs]
    first = [machine.tensor(array) for array in (*sample.inputs, *outputs)]
    sets = [first]
    for _ in range(count - 1):
        others = list(first)
        for n in constants:
            others[n] = machine.tensor(sample.inputs[n])
        sets.append(others)
    return sets


def _compare(machine: Machine, sample: Sample, arguments: Sequence[Any]) -> None:
    count = len(sample.inputs)
    for before, tensor in zip(sample.inputs, arguments[:count], strict=True):
        if before.tobytes() != machine.numpy(tensor).tobytes():
            raise TrialError("changed its input")
    if wrong := disagreement(sample, [machine.numpy(tensor) for tensor in arguments[count:]]):
        raise TrialError(wrong)


def _times(
    machine: Machine, kernels: Sequence[tuple[Function, list[list[Any]]]], pairs: int
) -> list[list[float]]:
    """Times of kernels in turn; few of one that is hopelessly slower than the first."""
    calls = []
    for function, sets in kernels:
        machine.seconds(function, sets, len(sets))  # all of it has been seen once
        once = machine.seconds(function, sets, 1)
        calls.append(max(1, min(_MOST_CALLS, int(_SPELL / max(once, 1e-9)))))
    times: list[list[float]] = [[] for _ in kernels]
    for number in range(pairs):
        for (function, sets), count, found in zip(kernels, calls, times, strict=True):
            # Each spell begins where the one before it ended, so that all sets have their turn.
            start = number * count % len(sets)
            found.append(machine.seconds(function, [*sets[start:], *sets[:start]], count))
        if number >= _FEWEST and median(times[-1]) > _HOPELESS * median(times[0]):
            break
    return times


def _write(path: Path, sample: Sample) -> None:
    named: dict[str, Array] = {
        "close": np.array([sample.tolerance, sample.edges]),
        "live": np.array(sample.live, np.int64),
    }
    for letter, arrays in (("i", sample.inputs), ("o", sample.outputs), ("d", sample.decided)):
        named |= {f"{letter}{n}": array for n, array in enumerate(arrays) if array is not None}
    np.savez(path, **named)  # type: ignore[arg-type]


def _read(path: Path) -> Sample:
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name] for name in file.files}

    def all_of(letter: str) -> list[Array]:
        count = sum(name[0] == letter and name[1:].isdecimal() for name in found)
        return [found[f"{letter}{n}"] for n in range(count)]

    outputs = all_of("o")
    decided = [found.get(f"d{n}") for n in range(len(outputs))]
    tolerance, edges = map(float, found["close"])
    live = tuple(map(int, found["live"]))
    return Sample(all_of("i"), outputs, decided, tolerance, edges, live)
