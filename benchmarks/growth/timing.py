"""Timing all networks of a sweep in turn, in this process."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import msgspec
import numpy as np

from growth.networks import Point
from gsb_tvm.runtime.session import Module
from measuring.machine import held, preferred
from measuring.rounds import Rounds
from measuring.samples import Figures, figures, timed

_MOST = 200  # runs of a network in a round


class Measured(msgspec.Struct, frozen=True):
    """One network's figures; ``macs`` are of a call, all images of the batch."""

    point: dict[str, int]
    tokens: int
    macs: int
    figures: Figures

    @property
    def us_per_gmac(self) -> float:
        """Microseconds for 10**9 multiply-accumulates."""
        return self.figures.median_ms * 1e3 / (self.macs / 1e9)


def measure(modules: Mapping[Point, Module], rounds: Rounds) -> dict[Point, Measured]:
    """Figures of every network."""
    rng = np.random.default_rng(1)
    images = {
        point: rng.standard_normal(module.metadata.program.inputs[0].shape, dtype=np.float32)
        for point, module in modules.items()
    }
    samples: dict[Point, list[Sequence[float]]] = {point: [[], []] for point in modules}
    for _ in range(rounds.count):
        for point, module in modules.items():
            with held(rounds.lock), preferred(rounds.priority):
                module(images[point])
                found = timed(lambda m=module, x=images[point]: m(x), rounds.seconds, _MOST)
            samples[point] = [old + new for old, new in zip(samples[point], found, strict=True)]
    return {
        point: Measured(
            asdict(point),
            point.config().tokens,
            sum(row.macs for row in module.report),
            figures(*samples[point]),
        )
        for point, module in modules.items()
    }
