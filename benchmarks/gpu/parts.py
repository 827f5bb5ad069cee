"""Seconds of each launch of a model, where it stands among the others."""

from collections import Counter
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
    """Launches of one kind of a model, each the work of one step or of several at once.

    Attributes
    ----------
    launches
        How many there are.
    seconds
        Of all of them.
    macs
        Of the products among their steps; None where there are none.
    bytes
        Of all their steps; None where not all are known.
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
    launches: dict[tuple[int, ...], list[float]] = {}
    for launch, each in zip(program.launches, seconds, strict=True):
        launches.setdefault(launch.steps, []).append(each)
    kinds: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for steps in launches:
        kind = _counted([work[step].kind for step in steps])
        shape = ", ".join(dict.fromkeys(work[step].shape for step in steps))
        kinds.setdefault((kind, shape), []).append(steps)
    found = []
    for (kind, shape), groups in kinds.items():
        spent = [each for steps in groups for each in launches[steps]]
        done = [work[step] for steps in groups for step in steps]
        macs = [each.macs for each in done if each.macs is not None]
        sizes = [each.bytes for each in done if each.bytes is not None]
        found.append(
            Part(
                kind,
                shape,
                len(spent),
                sum(spent),
                sum(macs) if macs else None,
                sum(sizes) if len(sizes) == len(done) else None,
            )
        )
    return sorted(found, key=lambda part: -part.seconds)


def _counted(kinds: Sequence[str]) -> str:
    return " + ".join(f"{n} {kind}" if n > 1 else kind for kind, n in Counter(kinds).items())
