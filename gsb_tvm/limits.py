"""What the cores of this machine can do at best: the loops of ``schedules/limits``, timed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import tvm

from gsb_tvm.schedules import limits
from gsb_tvm.step_work import Limit, Work
from gsb_tvm.targets import Profile

# Long beside a loop's tens of microseconds, shorter than what Linux gives a process at a time.
_SECONDS = 0.001
_TIMINGS = 30


@dataclass
class Limits:
    """Compiled loops and the highest rates seen, in multiply-accumulates or bytes a second.

    A loop runs on one core; ``threads`` of them do as much more.
    """

    threads: int
    _loops: dict[Limit, Callable[[], float]]
    rates: dict[Limit, float] = field(default_factory=dict)

    def measure(self) -> None:
        """Time every loop; what disturbs a timing makes it slower, so the best is kept."""
        for each, timed in self._loops.items():
            for _ in range(_TIMINGS):
                self.rates[each] = max(self.rates.get(each, 0.0), self.threads * timed())

    def ideal_seconds(self, works: Sequence[Work]) -> list[float | None]:
        """Seconds of each step at the rate of its limit; None where it has none."""
        return [
            None if work.limit is None else work.amount / self.rates[work.limit] for work in works
        ]


def prepared(steps: Iterable[Work], profile: Profile, threads: int) -> Limits:
    """Compile the loops that ``steps`` are held against, for the target of their kernels."""
    keys = sorted({work.limit for work in steps if work.limit is not None})
    loops = {each: limits.loop(each[0], profile, each[1]) for each in keys}
    return Limits(threads, {each: _timed(loop, profile) for each, loop in loops.items()})


def _timed(loop: limits.Loop, profile: Profile) -> Callable[[], float]:
    """Function that runs the loop for a while and returns its rate."""
    module = tvm.IRModule({"main": loop.func})
    compiled = tvm.compile(module, target=profile.tvm_target()).jit()
    arguments = [tvm.runtime.tensor(array) for array in loop.arrays]

    def seconds(number: int) -> float:
        evaluate = compiled.time_evaluator("main", tvm.cpu(), number=number, repeat=1)
        return float(evaluate(*arguments).mean)

    once = max(1e-7, min(seconds(1), seconds(10)))
    number = max(1, round(_SECONDS / once))
    return lambda: loop.work / seconds(number)
