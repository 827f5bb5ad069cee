"""Timing kernels and limits in turn, so that both see the same machine."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import tvm
from tvm import tirx

from gsb_tvm.dialect import work
from gsb_tvm.dialect.specs import Dense, encode
from gsb_tvm.dialect.work import Bound
from gsb_tvm.schedules import limits as loops
from gsb_tvm.schedules.dense import Method, method
from gsb_tvm.targets import Profile
from limits import clock
from limits.inside import Network
from limits.kernels import Kernel
from measuring.machine import held, preferred
from measuring.rounds import Rounds

_PASSES = 5  # of the whole network in a round

Seconds = Callable[[], float]
"""Runs a kernel for a while and returns the seconds of one call."""


class Result(msgspec.Struct, frozen=True):
    """One kernel's figures: medians over the rounds.

    Attributes
    ----------
    rate
        Multiply-accumulates or bytes a second, as ``unit`` says.
    per_cycle
        The same a cycle; None where the clock is not known.
    microseconds_inside
        Of a call in the whole network.
    share
        Of the limit's rate in the same round, of the kernel alone.
    """

    name: str
    shape: str
    calls: int
    microseconds: float
    microseconds_inside: float
    unit: str
    rate: float
    per_cycle: float | None
    bytes_per_second: float
    limit: str
    limit_rate: float
    share: float
    low_share: float
    high_share: float


def seconds_of(
    func: tirx.PrimFunc, arrays: Sequence[np.ndarray], profile: Profile, seconds: float
) -> Seconds:
    """Compile a kernel; each timing takes about ``seconds``. TVM's own loop makes the calls."""
    compiled = tvm.compile(tvm.IRModule({"main": func}), target=profile.tvm_target()).jit()
    arguments = [tvm.runtime.tensor(array) for array in arrays]

    def timed(number: int) -> float:
        evaluate = compiled.time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return evaluate(*arguments).mean

    once = max(timed(1), 1e-7)
    number = max(1, round(seconds / min(once, timed(max(1, int(1e-3 / once))))))
    return lambda: timed(number)


def measure(
    kernels: Sequence[Kernel], network: Network, profile: Profile, rounds: Rounds
) -> tuple[list[Result], float | None]:
    """Figures of every kernel, in the given order, and the frequency of the core in Hz."""

    def prepared(func: tirx.PrimFunc, arrays: Sequence[np.ndarray]) -> Seconds:
        return seconds_of(func, arrays, profile, rounds.seconds)

    ticking = prepared(clock.chain(), clock.arrays())
    limits = [limit_of(kernel, profile) for kernel in kernels]
    pairs = [
        (prepared(kernel.func, kernel.arrays), prepared(limit.func, limit.arrays))
        for kernel, limit in zip(kernels, limits, strict=True)
    ]
    samples = np.empty((rounds.count, len(kernels), 3))
    for number in range(rounds.count):
        with held(rounds.lock), preferred(rounds.priority):
            for place, (kernel, limit) in enumerate(pairs):
                samples[number, place] = ticking(), limit(), kernel()
            network.run(_PASSES)
    inside = network.call_seconds()
    results = [
        _result(kernel, limit, samples[:, place], inside[encode(kernel.spec)], profile)
        for place, (kernel, limit) in enumerate(zip(kernels, limits, strict=True))
    ]
    cycles = clock.cycles(profile)
    return results, None if cycles is None else cycles / float(np.median(samples[:, :, 0]))


def limit_of(kernel: Kernel, profile: Profile) -> loops.Loop:
    """The loop that a kernel is held against."""
    bound = work.bound(kernel.spec)
    if isinstance(kernel.spec, Dense) and method(kernel.spec, profile) is Method.TILES:
        bound = Bound.TILES
    return loops.loop(bound, profile, work.floats(kernel.spec) if bound is Bound.READING else 0)


def _result(
    kernel: Kernel, limit: loops.Loop, samples: np.ndarray, inside: float, profile: Profile
) -> Result:
    """``samples`` holds seconds of clock, limit and kernel, (rounds, 3) float64."""
    ticks, limit_seconds, seconds = samples.T
    reads = work.bound(kernel.spec) is Bound.READING
    amount = 4.0 * work.floats(kernel.spec) if reads else float(work.macs(kernel.spec))
    shares = (amount / seconds) / (limit.work / limit_seconds)
    cycles = clock.cycles(profile)
    per_cycle = None if cycles is None else float(np.median(amount / (seconds * (cycles / ticks))))
    low, share, high = (float(x) for x in np.percentile(shares, [25, 50, 75]))
    median = float(np.median(seconds))
    return Result(
        kernel.name,
        work.shape_text(kernel.spec),
        kernel.calls,
        median * 1e6,
        inside * 1e6,
        "B" if reads else "MAC",
        amount / median,
        per_cycle,
        kernel.bytes / median,
        limit.name,
        limit.work / float(np.median(limit_seconds)),
        share,
        low,
        high,
    )
