"""What the chip can do at most, and what a launch costs."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu import hopper
from benchmarks.gpu.chip import multiprocessors
from benchmarks.gpu.events import Clock
from benchmarks.gpu.limits import LOOPS, NOTHING, OVERLAPPING, Limits, Loop, Rate
from benchmarks.gpu.overlap import Recorded
from benchmarks.gpu.timing import compared
from gsb_tvm.runtime.cuda.driver import CudaDevice, Device
from tests.gpu.environment import gpu_state
from tests.gpu.folder import HOPPER_LIMITS, LIMITS
from tests.gpu.rows import Row
from tests.gpu.stages import Check

_ROUNDS, _SECONDS = 7, 0.01
_LAUNCHES = 200  # of a graph or in a row, to time one
_LAUNCH, _OVERLAP = "launches that do nothing", "launches that overlap"


def units(folder: Path) -> list[str]:
    """Each loop, then launches."""
    return [*_loops(folder), _LAUNCH, _OVERLAP]


def _loops(folder: Path) -> dict[str, tuple[Loop, str]]:
    """Name -> loop and the file that holds it; Hopper's only where the folder is for one."""
    found = {loop.function: (loop, LIMITS) for loop in LOOPS}
    if (folder / HOPPER_LIMITS).exists():
        found |= {loop.function: (loop, HOPPER_LIMITS) for loop in hopper.LOOPS}
    return found


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """The GPU with the loops."""
    device = CudaDevice(0)
    clock = Clock(device)

    def check(unit: str) -> Iterator[Row]:
        if unit == _LAUNCH:
            yield _launches(device, clock, limits_of(folder, device))
        elif unit == _OVERLAP:
            yield _overlapping(device, clock, (folder / LIMITS).read_bytes())
        else:
            loop, file = _loops(folder)[unit]
            yield _rate(loop, limits_of(folder, device, file), device, clock)

    return check


def _rate(loop: Loop, limits: Limits, device: Device, clock: Clock) -> Row:
    rate = limits.rate(loop, seconds_of(device, clock))
    figures = {f"T{rate.unit}/s": rate.per_second / 1e12}
    text = f"{rate.blocks} blocks of {rate.warps} warps; {gpu_state()}"
    return Row(loop.function, "figure", text, figures)


def limits_of(folder: Path, device: Device, file: str = LIMITS) -> Limits:
    """The loops of a file of a folder on a GPU."""
    return Limits(device, (folder / file).read_bytes(), multiprocessors(device.ordinal))


def seconds_of(device: Device, clock: Clock) -> Callable[[Any], float]:
    """Times a launch: the median of some rounds."""

    def timed(node: Any) -> float:
        runs = {"": lambda: device.run(node, clock.stream)}
        return compared(clock, runs, rounds=_ROUNDS, seconds=_SECONDS)[""].median

    return timed


def rates(limits: Limits, device: Device, clock: Clock) -> dict[str, Rate]:
    """What kernels are held against: products of bits, and memory."""
    wanted = ("b1_mma", "memory_read", "fused")
    return {
        loop.function: limits.rate(loop, seconds_of(device, clock))
        for loop in LOOPS
        if loop.function in wanted
    }


def _launches(device: Device, clock: Clock, limits: Limits) -> Row:
    node = limits.node(NOTHING)
    graph = device.graph([node] * _LAUNCHES)

    def in_a_row() -> None:
        for _ in range(_LAUNCHES):
            device.run(node, clock.stream)

    runs = {"graph": lambda: device.run_graph(graph, clock.stream), "launched": in_a_row}
    found = compared(clock, runs, rounds=_ROUNDS, seconds=_SECONDS)
    figures = {f"{name}_us": each.median / _LAUNCHES * 1e6 for name, each in found.items()}
    return Row(_LAUNCH, "figure", "each, as nodes of a graph and one by one", figures)


def _overlapping(device: Device, clock: Clock, cubin: bytes) -> Row:
    """Launches that let the next one begin, as they stand in a graph and one behind the other."""
    pointer = device.allocate(_LAUNCHES)
    graphs = {
        name: Recorded(cubin, OVERLAPPING, pointer, _LAUNCHES, overlaps=overlaps)
        for name, overlaps in (("overlapping", True), ("one_by_one", False))
    }
    runs = {name: lambda graph=graph: graph.run(clock.stream) for name, graph in graphs.items()}
    found = compared(clock, runs, rounds=_ROUNDS, seconds=_SECONDS)
    figures = {f"{name}_us": each.median / _LAUNCHES * 1e6 for name, each in found.items()}
    return Row(_OVERLAP, "figure", "each, in a graph", figures)
