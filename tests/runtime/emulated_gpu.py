"""A GPU in this process: the driver's part by the emulator of generated source."""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gsb_tvm.runtime.cuda.driver import CopyNode, Node
from tests.schedules.cuda.emulator import WAYS, Emulated, Memory, Way


@cache
def emulated(source: str) -> Emulated:
    """A source, compiled once."""
    return Emulated(source)


class EmulatedGpu:
    """Runs ``sources``, in the order in which code is loaded; memory is the host's, between guards.

    ``nodes`` counts what it was told to do, ``graphs`` how many graphs were made.
    """

    ordinal = 0

    def __init__(self, *sources: str, arch: tuple[int, int] = (9, 0), way: Way = WAYS[0]) -> None:
        self._emulated, self._arch, self._way = [*map(emulated, sources)], arch, way
        self.memory: dict[int, Memory] = {}
        self.loaded: list[bytes] = []
        self.nodes = self.graphs = self.changes = 0
        self.captured: list[Node] | None = None

    def capability(self) -> tuple[int, int]:
        return self._arch

    def allocate(self, size: int) -> int:
        memory = Memory(np.zeros(size, np.uint8))
        self.memory[memory.pointer] = memory
        return memory.pointer

    def free(self, pointer: int) -> None:
        self.memory.pop(pointer).read()

    def upload(self, pointer: int, array: np.ndarray, _stream: int) -> None:
        ctypes.memmove(pointer, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, pointer: int, _stream: int) -> None:
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def load(self, image: bytes) -> Any:
        self.loaded.append(image)
        return self._emulated[len(self.loaded) - 1]

    def function(self, module: Any, name: str) -> tuple[Any, str]:
        return module, name

    def run(self, node: Node, _stream: int) -> None:
        self.nodes += 1
        if isinstance(node, CopyNode):
            ctypes.memmove(node.target, node.source, node.size)
            return
        library, name = node.function
        library.launch(name, node.grid, node.block, node.pointers, self._way)

    def graph(self, nodes: Sequence[Node]) -> list[Node]:
        self.graphs += 1
        return list(nodes)

    def change(self, graph: list[Node], number: int, node: Node) -> None:
        self.changes += 1
        graph[number] = node

    def run_graph(self, graph: list[Node], stream: int) -> None:
        for node in graph:
            self.run(node, stream)

    def is_capturing(self, _stream: int) -> bool:
        return self.captured is not None

    def synchronize(self, _stream: int) -> None:
        for memory in self.memory.values():
            memory.read()
