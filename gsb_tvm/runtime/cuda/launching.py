"""Calls of programs on a GPU: as graphs, of which a call changes only what touches its tensors."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.cuda.actions import (
    Action,
    CopyIn,
    CopyOut,
    actions_of,
    size_of,
    touches_tensors,
)
from gsb_tvm.runtime.cuda.driver import CopyNode, Device, LaunchNode, Node, Pointer, Stream


class Held:
    """Memory of a GPU, of zeros at first, given back when nobody has it any more."""

    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self.pointer = device.allocate(size)
        weakref.finalize(self, device.free, self.pointer).atexit = False


@dataclass
class Room:
    """What calls of one thread on one stream write; kept from call to call.

    Each program has memory of its own: it must find zeros where it left zeros.
    """

    device: Device
    memory: dict[str, Held] = field(default_factory=dict)
    staged: dict[int, Held] = field(default_factory=dict)
    graphs: dict[str, "_Recorded"] = field(default_factory=dict)

    def memory_of(self, program: meta.Program) -> Pointer:
        """What a program writes."""
        if program.entry not in self.memory:
            self.memory[program.entry] = Held(self.device, actions_of(program).memory_bytes)
        return self.memory[program.entry].pointer

    def stage(self, number: int, size: int) -> Pointer:
        """A place for tensor ``number`` of a call whose caller has it in the host's memory."""
        known = self.staged.get(number)
        if known is None or known.size < size:
            known = self.staged[number] = Held(self.device, size)
        return known.pointer


@dataclass(frozen=True)
class Resident:
    """A call whose tensors are on the GPU: ``start`` puts ``nodes`` into ``stream``."""

    device: Device
    stream: Stream
    nodes: Sequence[Node]
    start: Callable[[], None]

    @property
    def launches(self) -> list[LaunchNode]:
        """The nodes that are no copies."""
        return [node for node in self.nodes if isinstance(node, LaunchNode)]

    def wait(self) -> None:
        """Wait for what was put there."""
        self.device.synchronize(self.stream)

    def run(self) -> None:
        """Run once."""
        self.start()
        self.wait()


@dataclass(frozen=True)
class Part:
    """What one program does of a call, and where the tensors of that are."""

    program: meta.Program
    inputs: Sequence[Pointer]
    outputs: Sequence[Pointer]


def shares(
    programs: Sequence[meta.Program], inputs: Sequence[Pointer], outputs: Sequence[Pointer]
) -> list[Part]:
    """Parts of a call that ``programs`` compute together, one batch behind the other."""
    found, at = [], 0
    for program in programs:
        read, written = (
            [
                pointer + at * (size_of(spec) // max(program.batch, 1))
                for pointer, spec in zip(pointers, specs, strict=True)
            ]
            for pointers, specs in ((inputs, program.inputs), (outputs, program.outputs))
        )
        found.append(Part(program, read, written))
        at += program.batch
    return found


class Launcher:
    """Puts calls of programs into streams: functions by program's entry and name, constants."""

    def __init__(
        self, device: Device, functions: Mapping[str, Mapping[str, Any]], weights: Pointer
    ) -> None:
        self._device, self._functions, self._weights = device, functions, weights

    def run(self, part: Part, stream: Stream, room: Room, *, is_recorded: bool) -> None:
        """Its actions, as one graph; one by one where somebody else records the stream."""
        if is_recorded:
            for node in self.nodes(part, room):
                self._device.run(node, stream)
            return
        known = room.graphs.get(part.program.entry)
        if known is None:
            nodes = self.nodes(part, room)
            known = _Recorded(self._device.graph(nodes), nodes, _moving(part.program))
            room.graphs[part.program.entry] = known
        for number, action in known.moving.items():
            if (wanted := self._node(part, action, room)) != known.nodes[number]:
                self._device.change(known.graph, number, wanted)
                known.nodes[number] = wanted
        self._device.run_graph(known.graph, stream)

    def nodes(self, part: Part, room: Room) -> list[Node]:
        """What the program does, in order."""
        return [self._node(part, action, room) for action in actions_of(part.program).actions]

    def _node(self, part: Part, action: Action, room: Room) -> Node:
        memory = room.memory_of(part.program)

        def pointer(place: meta.Place) -> Pointer:
            if place.where == "input":
                return part.inputs[place.at]
            return (memory if place.where == "memory" else self._weights) + place.at

        match action:
            case CopyIn(number, at, size):
                return CopyNode(memory + at, part.inputs[number], size)
            case CopyOut(number, source, size):
                return CopyNode(part.outputs[number], pointer(source), size)
            case launch:
                function = self._functions[part.program.entry][launch.function]
                pointers = tuple(map(pointer, launch.arguments))
                return LaunchNode(function, launch.grid, launch.block, pointers)


@dataclass
class _Recorded:
    """A program's graph, what its nodes do now, and which depend on a call's tensors."""

    graph: Any
    nodes: list[Node]
    moving: dict[int, Action]


def _moving(program: meta.Program) -> dict[int, Action]:
    """Actions that touch tensors of a call, by number."""
    actions = enumerate(actions_of(program).actions)
    return {number: action for number, action in actions if touches_tensors(action)}
