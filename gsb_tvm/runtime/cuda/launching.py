"""Calls of programs on a GPU: as graphs, of which a call changes only what touches its tensors."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.cuda.driver import CopyNode, Device, LaunchNode, Node, Pointer, Stream


class Held:
    """Memory of a GPU, of zeros at first, given back when nobody has it any more."""

    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self.pointer = device.allocate(size)
        weakref.finalize(self, device.free, self.pointer).atexit = False


@dataclass
class Room:
    """What calls of one thread on one stream write; kept from call to call."""

    memory: Held
    staged: dict[int, Held] = field(default_factory=dict)
    graphs: dict[str, "_Recorded"] = field(default_factory=dict)

    def stage(self, device: Device, number: int, size: int) -> Pointer:
        """A place for tensor ``number`` of a call whose caller has it in the host's memory."""
        known = self.staged.get(number)
        if known is None or known.size < size:
            known = self.staged[number] = Held(device, size)
        return known.pointer


@dataclass(frozen=True)
class Resident:
    """A call whose tensors are on the GPU: ``start`` puts it into a stream, ``wait`` waits."""

    start: Callable[[], None]
    wait: Callable[[], None]

    def run(self) -> None:
        """Run once."""
        self.start()
        self.wait()


class Launcher:
    """Puts calls of programs into streams: functions by program's entry and name, constants."""

    def __init__(
        self, device: Device, functions: Mapping[str, Mapping[str, Any]], weights: Pointer
    ) -> None:
        self._device, self._functions, self._weights = device, functions, weights

    def run(
        self,
        program: meta.Program,
        inputs: Sequence[Pointer],
        outputs: Sequence[Pointer],
        stream: Stream,
        room: Room,
        *,
        is_recorded: bool,
    ) -> None:
        """All launches as one graph; one by one where somebody else records the stream."""

        def node(number: int) -> Node:
            return self._node(program, number, inputs, outputs, room)

        if is_recorded:
            for number in range(_length(program)):
                self._device.run(node(number), stream)
            return
        known = room.graphs.get(program.entry)
        if known is None:
            nodes = [node(number) for number in range(_length(program))]
            known = _Recorded(self._device.graph(nodes), nodes, _moving(program))
            room.graphs[program.entry] = known
        for number in known.moving:
            if (wanted := node(number)) != known.nodes[number]:
                self._device.change(known.graph, number, wanted)
                known.nodes[number] = wanted
        self._device.run_graph(known.graph, stream)

    def _node(
        self,
        program: meta.Program,
        number: int,
        inputs: Sequence[Pointer],
        outputs: Sequence[Pointer],
        room: Room,
    ) -> Node:
        """A launch of a program by its number, or, behind the last, the copy of an output."""

        def place(where: meta.Place) -> Pointer:
            if where.where == "input":
                return inputs[where.at]
            return (room.memory.pointer if where.where == "memory" else self._weights) + where.at

        if number >= len(program.launches):
            output = _copied(program)[number - len(program.launches)]
            source = place(program.results[output])
            return CopyNode(outputs[output], source, size_of(program.outputs[output]))
        launch = program.launches[number]
        function = self._functions[program.entry][launch.function]
        return LaunchNode(function, launch.grid, launch.block, tuple(map(place, launch.arguments)))


@dataclass
class _Recorded:
    """A program's graph, what its nodes do now, and which depend on a call's tensors."""

    graph: Any
    nodes: list[Node]
    moving: list[int]


def _length(program: meta.Program) -> int:
    """Nodes of a program: launches, then copies."""
    return len(program.launches) + len(_copied(program))


def _copied(program: meta.Program) -> list[int]:
    """Outputs of a program that are not empty."""
    return [number for number, spec in enumerate(program.outputs) if size_of(spec)]


def _moving(program: meta.Program) -> list[int]:
    """Nodes that touch tensors of a call."""
    reading = [
        number
        for number, launch in enumerate(program.launches)
        if any(argument.where == "input" for argument in launch.arguments)
    ]
    return [*reading, *range(len(program.launches), _length(program))]


def size_of(spec: meta.Tensor) -> int:
    """Bytes of a tensor."""
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
