"""Timing a compiled model as a whole: how it loads, how it runs, what memory it takes."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path

import msgspec
import numpy as np

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.inputs import read_inputs
from gsb_tvm.loading import load
from gsb_tvm.profiling import Breakdown, breakdown, sample, sample_launches
from gsb_tvm.runtime.arrays import Array
from gsb_tvm.runtime.batches import sized
from gsb_tvm.runtime.cuda.launching import Resident
from gsb_tvm.runtime.cuda.session import CudaModule
from gsb_tvm.runtime.metadata import Metadata, Target, Tensor
from gsb_tvm.runtime.session import Module
from gsb_tvm.runtime.timing import Latency, latency, resident_bytes, timed
from gsb_tvm.step_work import Work
from gsb_tvm.targets import resolve


@dataclass(frozen=True)
class Plan:
    """How to time: ``runs`` calls, or as many as begin within ``seconds``, after ``warmup``."""

    threads: int
    seconds: float
    runs: int | None
    warmup: int
    gpu: int | None = None


# Calls of a GPU that are waited for together last so long, beside which the wait is little.
_BURST_SECONDS = 0.05


class MemoryUse(msgspec.Struct, frozen=True):
    """Bytes: of the file, what a call needs beside it, what loading and running it added in RAM.

    ``resident`` is what the whole process has in RAM, Python and NumPy included. What a call needs
    is in the GPU's memory where it runs there.
    """

    file: int
    call: int
    added: int
    resident: int


class Figures(msgspec.Struct, frozen=True):
    """What was measured; times in milliseconds.

    A run on a GPU finds its inputs there, leaves its outputs there, and is waited for.

    Attributes
    ----------
    images, batches
        Extent of the first input's leading axis, and the programs that share it; (0,) for one that
        takes the shapes as they stand.
    preempted, quiet_ms
        Runs during which somebody else was given a core of this process, and the median of the
        other runs; None where there are none.
    load_ms, first_ms
        Loading the artefact, and its first run, whose constants come from the file.
    queued_ms
        A run on a GPU among many that are waited for together, by which ``images_per_s`` counts.
    """

    model: str
    target: Target
    threads: int
    images: int
    batches: tuple[int, ...]
    warmup: int
    runs: int
    preempted: int
    quiet_ms: float | None
    load_ms: float
    first_ms: float
    latency_ms: Latency
    images_per_s: float
    memory: MemoryUse
    queued_ms: float | None = None
    profile: Breakdown | None = None


@dataclass(frozen=True)
class Loaded:
    """A model in memory that has run once."""

    module: Module | CudaModule
    arrays: list[Array]
    load_s: float
    first_s: float
    added_bytes: int


def loaded(path: Path, plan: Plan, inputs: Sequence[str], batch: int | None = None) -> Loaded:
    """Load an artefact and run it once.

    Parameters
    ----------
    inputs
        Words as for :func:`read_inputs`.
    batch
        How many images to draw where there are none; None for as many as the smallest program
        takes.

    Raises
    ------
    ArtefactError, UsageError
        As for :func:`gsb_tvm.loading.load` and a call.
    """
    before = resident_bytes()
    start = time.perf_counter()
    module = load(path, plan.threads, plan.gpu)
    load_s = time.perf_counter() - start
    arrays = module.inputs(read_inputs(inputs, _specs(module.metadata, batch)))
    start = time.perf_counter()
    module.run(arrays)
    first_s = time.perf_counter() - start
    return Loaded(module, arrays, load_s, first_s, max(0, resident_bytes() - before))


def _specs(metadata: Metadata, batch: int | None) -> tuple[Tensor, ...]:
    """Inputs of a call of ``batch``."""
    program = metadata.program
    if batch is None:
        return program.inputs
    if not program.batch:
        raise UsageError(
            f"{metadata.model.name}: the batch of this artefact is fixed: --batch does not go with "
            "it. Compile the model for that batch."
        )
    return tuple(sized(spec, batch) for spec in program.inputs)


def measure(model: Loaded, plan: Plan, file_bytes: int) -> Figures:
    """Warm up, then time runs of the whole model."""
    module, arrays = model.module, model.arrays
    resident = module.resident(arrays) if isinstance(module, CudaModule) else None
    run: Callable[[], object] = resident.run if resident else partial(module.run, arrays)
    for _ in range(plan.warmup):
        run()
    found = timed(run, seconds=plan.seconds, runs=plan.runs)
    run_s = float(found.seconds.mean())
    queued_s = None if resident is None else _queued(resident, plan, run_s)
    metadata = module.metadata
    images = arrays[0].shape[0] if arrays and arrays[0].ndim else 1
    quiet = found.seconds[~found.preempted]
    return Figures(
        model=metadata.model.name,
        target=metadata.target,
        threads=plan.threads,
        images=images,
        batches=tuple(program.batch for program in module.programs(arrays)),
        warmup=plan.warmup,
        runs=len(found.seconds),
        preempted=int(found.preempted.sum()),
        quiet_ms=float(np.median(quiet)) * 1e3 if len(quiet) else None,
        load_ms=model.load_s * 1e3,
        first_ms=model.first_s * 1e3,
        latency_ms=latency(found.seconds),
        images_per_s=images / (queued_s or run_s),
        memory=MemoryUse(
            file=file_bytes,
            call=metadata.call_bytes(plan.threads),
            added=model.added_bytes,
            resident=resident_bytes(),
        ),
        queued_ms=None if queued_s is None else queued_s * 1e3,
    )


def _queued(call: Resident, plan: Plan, run_s: float) -> float:
    """Median of the seconds of a call among many that are waited for together."""
    calls = ceil(_BURST_SECONDS / run_s)

    def burst() -> None:
        for _ in range(calls):
            call.start()
        call.wait()

    found = timed(burst, seconds=plan.seconds, runs=plan.runs)
    return float(np.median(found.seconds)) / calls


def profiled(model: Loaded, plan: Plan, works: Sequence[Work], *, has_limit: bool) -> Breakdown:
    """Time the steps, whose work is ``works``; what the machine can do at best before and after.

    Of a GPU that is not known.
    """
    module, metadata = model.module, model.module.metadata
    program = module.whole(model.arrays)
    ideal: Sequence[float | None] = [None] * len(works)
    if isinstance(module, CudaModule):
        call = module.resident(model.arrays)
        samples = sample_launches(call, program, seconds=plan.seconds, runs=plan.runs)
        return breakdown(program, works, samples, ideal)
    if has_limit:
        from gsb_tvm.limits import prepared  # imports TVM

        limits = prepared(works, resolve(metadata.target.text), plan.threads)
        limits.measure()
    for _ in range(plan.warmup):
        module.run(model.arrays)
    samples = sample(module, model.arrays, seconds=plan.seconds, runs=plan.runs)
    if has_limit:
        limits.measure()
        ideal = limits.ideal_seconds(works)
    return breakdown(program, works, samples, ideal)
