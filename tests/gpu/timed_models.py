"""GSB DeiT-Small against DeiT-Small in other engines, and where its time goes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.events import Clock
from benchmarks.gpu.limits import NOTHING, PAUSE, Limits, Rate
from benchmarks.gpu.parts import Watched, node_seconds, parts
from benchmarks.gpu.timing import Figures, Run, compared
from gsb_tvm.runtime.cuda.driver import CopyNode
from gsb_tvm.runtime.cuda.session import CudaModule, load_cuda
from tests.gpu import folder as layout
from tests.gpu.environment import gpu_state
from tests.gpu.folder import DEIT_SMALL, contents
from tests.gpu.rows import Row, unable
from tests.gpu.stages import Check
from tests.gpu.timed_kernels import shares
from tests.gpu.timed_limits import limits_of, rates

OURS, CALLED = "ours", "ours, called from Python"
_ROUNDS, _SECONDS = 11, 0.02
_PARTS_ROUNDS = 15
_LATE = "was not compiled in time"


def units(folder: Path) -> list[str]:
    """The comparison and the parts at each batch: the ends first."""
    sizes = sorted(layout.batches(folder))
    ordered = [*sizes[:1], *reversed(sizes[1:])]
    return [f"{what} {size}" for size in ordered for what in ("compare", "parts")]


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """The model, and the limits as they are now."""
    model = next(each for each in contents(folder).models if each.name == DEIT_SMALL)
    device = Watched(0)
    module = load_cuda(layout.artefact(folder, model), device)
    clock = Clock(device)
    limits = limits_of(folder, device)
    held_against = rates(limits, device, clock)

    def check(unit: str) -> Iterator[Row]:
        what, _, size = unit.partition(" ")
        if what == "compare":
            yield from _compared(clock, module, int(size))
        else:
            yield from _parts(device, clock, module, int(size), limits, held_against)

    return check


def _ours(module: CudaModule, batch: int, stream: Any = None) -> Callable[[], object]:
    """A call on tensors of the GPU."""
    import torch

    (spec,), (out,) = module.metadata.program.inputs, module.metadata.program.outputs
    images = torch.randn(batch, *spec.shape[1:], device="cuda")
    logits = torch.empty(batch, *out.shape[1:], device="cuda")
    return lambda: module(images, out=logits, stream=stream)


def _compared(clock: Clock, module: CudaModule, batch: int) -> Iterator[Row]:
    from benchmarks.gpu import onnxruntime_opponents
    from benchmarks.gpu.opponents import OPPONENTS, mark, recorded, run_of

    call = _ours(module, batch)
    runs: dict[str, Run] = {OURS: recorded(call), CALLED: call}
    for opponent in OPPONENTS:
        if opponent.way != "eager" and not mark(opponent.way, batch).exists():
            yield Row(f"{opponent.name}, batch {batch}", "skipped", _LATE)
            continue
        yield from _added(runs, opponent.name, batch, partial(run_of, opponent, batch, DEIT_SMALL))
    for name, provider in onnxruntime_opponents.PROVIDERS.items():
        if text := onnxruntime_opponents.missing(provider):
            yield Row(f"{name}, batch {batch}", "skipped", text)
            continue
        if provider == onnxruntime_opponents.TENSORRT and not mark(name, batch).exists():
            yield Row(f"{name}, batch {batch}", "skipped", _LATE)
            continue
        make = partial(onnxruntime_opponents.run_of, provider, batch, DEIT_SMALL)
        yield from _added(runs, name, batch, make)
    before = gpu_state()
    found = compared(clock, runs, rounds=_ROUNDS, seconds=_SECONDS)
    yield from compared_rows(found, batch)
    yield Row(f"GPU before and after batch {batch}", "figure", f"{before} | {gpu_state()}")


def _added(runs: dict[str, Run], name: str, batch: int, make: Callable[[], Run]) -> Iterator[Row]:
    """Add an opponent, or say why it cannot run."""
    try:
        runs[name] = make()
    except Exception as err:  # whatever it is
        yield unable(f"{name}, batch {batch}", err)


def compared_rows(found: Mapping[str, Figures], batch: int) -> Iterator[Row]:
    """Milliseconds of a batch, images a second, and how many times as long as ours."""
    ours = found[OURS].median
    for name, each in found.items():
        figures = {
            "ms": each.median * 1e3,
            "low_ms": each.low * 1e3,
            "high_ms": each.high * 1e3,
            "images/s": batch / each.median,
            "times_ours": each.median / ours,
        }
        yield Row(f"batch {batch}, {name}", "figure", "", figures)


def _parts(
    device: Watched,
    clock: Clock,
    module: CudaModule,
    batch: int,
    limits: Limits,
    held_against: Mapping[str, Rate],
) -> Iterator[Row]:
    """Each kind of launch of a batch, and what the way of measuring adds to each."""
    import torch

    call = _ours(module, batch, torch.cuda.Stream())  # a new one, so that a graph is made for it
    call()
    torch.cuda.synchronize()
    program = next(each for each in module.metadata.programs if each.batch == batch)
    launches = [node for node in device.nodes if not isinstance(node, CopyNode)]
    assert len(launches) == len(program.launches), "the last graph is not this program's"
    pause, nothing = limits.node(PAUSE), limits.node(NOTHING)
    seconds = node_seconds(device, clock, launches, pause, _PARTS_ROUNDS)
    empty = node_seconds(device, clock, [nothing] * 50, pause, _PARTS_ROUNDS)
    base = float(np.median(empty))
    yield Row(f"batch {batch}, a launch of nothing", "figure", "", {"us": base * 1e6})
    whole = sum(seconds)
    for part in parts(program, seconds, DEIT_SMALL):
        net = max(part.seconds - base * part.launches, 1e-9)
        figures: dict[str, float | int | str] = {
            "launches": part.launches,
            "us": part.seconds * 1e6,
            "net_us": net * 1e6,
            "of_whole": part.seconds / whole,
            **shares(net, part.macs, part.bytes, held_against),
        }
        yield Row(f"batch {batch}, {part.kind} {part.shape}", "figure", "", figures)
