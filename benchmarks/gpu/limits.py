"""What a chip can do at most: loops of ``limits.cu``, compiled ahead, timed where the GPU is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from gsb_tvm.runtime.cuda.driver import Device, LaunchNode, Pointer
from gsb_tvm.runtime.cuda.launching import Held

_CHAINS = 8  # products of a warp that do not wait for each other
_STEPS = 4096
_CHUNK = 1 << 18
_AGAIN = 16 << 20  # bytes that fit into half of the smallest level 2 cache of those GPUs
_MEMORY = 2 << 30  # bytes: many times the cache
_PAUSE_NS = 20_000_000

_SOURCE = Path(__file__).with_name("limits.cu")


@dataclass(frozen=True)
class Loop:
    """A function of ``limits.cu``.

    Attributes
    ----------
    unit
        "MAC" or "B".
    amount
        Of the unit, done by a warp in a step of a chain, or by a block.
    is_memory
        Whether a block reads or copies a chunk; else warps multiply.
    most_warps
        Of a block.
    """

    function: str
    unit: str
    amount: int
    is_memory: bool = False
    most_warps: int = 32


LOOPS = (
    Loop("b1_mma", "MAC", 16 * 8 * 256),
    Loop("int8_mma", "MAC", 16 * 8 * 32),
    Loop("bf16_mma", "MAC", 16 * 8 * 16),
    Loop("popcount", "MAC", 32 * 32),
    Loop("fused", "MAC", 32),
    Loop("memory_read", "B", _CHUNK, is_memory=True),
    Loop("memory_copy", "B", 2 * _CHUNK, is_memory=True),
    Loop("cache_read", "B", _CHUNK, is_memory=True),
)
NOTHING = "nothing"
"""A function that does nothing, to time what a launch costs."""
OVERLAPPING = "overlapping"
"""The same, where launches overlap."""
PAUSE = "pause_stream"
"""A function that keeps a stream busy while it is filled."""

_WARPS = (4, 8, 16, 32)  # of a block: too few do not hide latency, and too many share registers


def source() -> str:
    """The loops as CUDA source, behind the words of our kernels."""
    words = resources.files("gsb_tvm.schedules").joinpath("cuda/device.cuh").read_text("utf-8")
    sizes = {"CHAINS": _CHAINS, "STEPS": _STEPS, "CHUNK": _CHUNK, "AGAIN": _AGAIN}
    sizes["PAUSE"] = _PAUSE_NS
    lines = [f"#define {name} {value}\n" for name, value in sizes.items()]
    return "".join([words, *lines, _SOURCE.read_text("utf-8")])


def compiled(arch: str) -> bytes:
    """Machine code of the loops.

    Raises
    ------
    ToolchainError
        NVIDIA's compiler is not here, or does not know the architecture.
    """
    from gsb_tvm.runtime.cuda.nvrtc import compile_source

    return compile_source(source(), arch).cubin


@dataclass(frozen=True)
class Rate:
    """Units a second, by how many warps of a block and blocks."""

    unit: str
    per_second: float
    warps: int
    blocks: int


class Limits:
    """The loops on a GPU of so many multiprocessors."""

    def __init__(self, device: Device, cubin: bytes, multiprocessors: int) -> None:
        self._device, self._module = device, device.load(cubin)
        self._multiprocessors = multiprocessors
        self._out = Held(device, 1 << 12)
        self._memory: list[Held] = []

    def node(self, function: str, blocks: int = 1, warps: int = 1) -> LaunchNode:
        """A launch of a function."""
        pointers = self._pointers(function)
        handle = self._device.function(self._module, function)
        return LaunchNode(handle, (blocks, 1, 1), (32 * warps, 1, 1), tuple(pointers))

    def _pointers(self, function: str) -> Sequence[Pointer]:
        loop = next((loop for loop in LOOPS if loop.function == function), None)
        if loop is None or not loop.is_memory:
            return [self._out.pointer]
        while len(self._memory) < 2:
            self._memory.append(Held(self._device, _MEMORY))
        first, second = self._memory
        return [first.pointer, (second if function == "memory_copy" else self._out).pointer]

    def rate(self, loop: Loop, seconds_of: Callable[[Any], float]) -> Rate:
        """The best of some sizes; ``seconds_of`` times a launch."""
        found = [
            Rate(loop.unit, work(loop, blocks, warps) / seconds_of(node), warps, blocks)
            for blocks, warps in self._sizes(loop)
            for node in [self.node(loop.function, blocks, warps)]
        ]
        return max(found, key=lambda rate: rate.per_second)

    def _sizes(self, loop: Loop) -> Iterator[tuple[int, int]]:
        if loop.is_memory:
            yield from ((_MEMORY // _CHUNK, warps) for warps in (8, 16, 32))
        else:
            for warps in (count for count in _WARPS if count <= loop.most_warps):
                yield self._multiprocessors * (2 if warps < 32 else 1), warps


def work(loop: Loop, blocks: int, warps: int) -> int:
    """What a launch does."""
    if loop.is_memory:
        return loop.amount * blocks
    return loop.amount * blocks * warps * _CHAINS * _STEPS


def share(amount: float, seconds: float, per_second: float) -> float:
    """How much of a rate something reached."""
    return amount / seconds / per_second if seconds > 0 else float("nan")
