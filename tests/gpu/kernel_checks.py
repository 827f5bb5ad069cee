"""Every kernel against the oracle, whose integers are int64: exact."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from gsb_tvm.runtime.cuda.driver import CudaDevice, Device
from gsb_tvm.tuning.samples import Sample
from tests.gpu.checks import complaint
from tests.gpu.drawing import samples, samples_of
from tests.gpu.folder import Case, contents, cubin
from tests.gpu.rows import Row
from tests.gpu.stages import Check

_MOST_WORKERS = 12
_RUNS = 3  # on the same inputs: threads that race do not always differ

Draw = Callable[[str], Sequence[Sample]]
"""Samples of an operator, given as text."""


def units(folder: Path) -> list[str]:
    """All kernels."""
    return [case.name for case in contents(folder).cases]


def opened(folder: Path, wanted: Sequence[str]) -> Check:
    """The GPU; other processes draw what kernels are checked on."""
    cases = {case.name: case for case in contents(folder).cases}
    draw = drawn_aside([cases[name] for name in wanted])  # processes fork before CUDA begins
    return checking(folder, cases, CudaDevice(0), draw)


def checking(
    folder: Path,
    cases: Mapping[str, Case],
    device: Device,
    draw: Draw,
    *,
    watched: bool = False,
) -> Check:
    """Checks of cases by name on a device."""

    def check(name: str) -> Iterator[Row]:
        case = cases[name]
        module = device.load(cubin(folder, case).read_bytes())
        # Copies of large tensors take longer than all else: of those, what is shipped counts most.
        runs = _RUNS if case.is_rule or case.is_small else 1
        functions = {each: device.function(module, each) for each in case.functions}
        found = complaint(
            device,
            case,
            functions,
            samples_of(folder, case, draw),
            runs=1 if watched else runs,
            watched=watched,
        )
        yield Row(name, "failed" if found else "ok", found)

    return check


def drawn_aside(cases: Sequence[Case]) -> Draw:
    """Samples from other processes, each once for all kernels that take it, in order."""
    workers = max(1, min(_MOST_WORKERS, (os.cpu_count() or 1) - 1))
    pool = ProcessPoolExecutor(workers, get_context("fork"))
    texts = dict.fromkeys(case.drawn for case in cases if case.spec)
    coming = {text: pool.submit(samples, text) for text in texts}
    return lambda text: coming[text].result()
