"""Seconds of each launch of a model, where it stands among the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.gpu.events import Clock
from gsb_tvm.runtime.cuda.driver import CudaDevice, Device, LaunchNode, Node
from gsb_tvm.runtime.metadata import Program
from gsb_tvm.step_work import work_of


class Watched(CudaDevice):
    """A GPU that remembers what the last graph was made of."""

    nodes: Sequence[Node] = ()

    def graph(self, nodes: Sequence[Node]) -> Any:
        """All of them, one behind the other."""
        self.nodes = tuple(nodes)
        return super().graph(nodes)


def node_seconds(
    device: Device, clock: Clock, nodes: Sequence[Node], pause: LaunchNode, rounds: int
) -> list[float]:
    """Seconds from one node's end to the next one's, medians over rounds.

    The stream is held up until all is in it, or the host's time would be measured. A launch that
    does nothing takes what the way of measuring does.
    """
    samples = np.empty((rounds, len(nodes)))
    for number in range(rounds):
        device.run(pause, clock.stream)
        marks = [clock.mark()]
        for node in nodes:
            device.run(node, clock.stream)
            marks.append(clock.mark())
        device.synchronize(clock.stream)
        samples[number] = clock.between(marks)
    return [float(x) for x in np.median(samples, axis=0)]


@dataclass(frozen=True)
class Part:
    """Launches of one kind of a model.

    Attributes
    ----------
    launches
        How many there are.
    seconds
        Of all of them.
    macs, bytes
        Of all of them; None where nothing says it.
    """

    kind: str
    shape: str
    launches: int
    seconds: float
    macs: int | None
    bytes: int | None


def parts(program: Program, seconds: Sequence[float], name: str) -> list[Part]:
    """What takes how long, the longest first; ``seconds`` are those of a program's launches.

    Raises
    ------
    ArtefactError
        The artefact called ``name`` does not list its steps.
    """
    work = work_of(program, name)
    spent = np.zeros(len(work))
    launches = np.zeros(len(work), int)
    for launch, each in zip(program.launches, seconds, strict=True):
        spent[launch.step] += each
        launches[launch.step] += 1
    kinds: dict[tuple[str, str], list[int]] = {}
    for step, each in enumerate(work):
        kinds.setdefault((each.kind, each.shape), []).append(step)
    found = [
        Part(
            kind,
            shape,
            int(launches[steps].sum()),
            float(spent[steps].sum()),
            _sum([work[step].macs for step in steps]),
            _sum([work[step].bytes for step in steps]),
        )
        for (kind, shape), steps in kinds.items()
    ]
    return sorted(found, key=lambda part: -part.seconds)


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
