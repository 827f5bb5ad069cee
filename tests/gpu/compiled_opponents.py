"""Compile others' networks into their caches, beside checks, so that timing has them at once."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.gpu.folder import DEIT_SMALL, batches
from tests.gpu.rows import Row, unable
from tests.gpu.stages import Check

_BATCHES_FIRST = (1, 64, 256)  # what the bars are about
_MODES = ("default", "max-autotune-no-cudagraphs")  # of torch.compile
_TENSORRT = "TensorRT fp16, in ONNX Runtime"


def units(folder: Path) -> list[str]:
    """Every compiled opponent for every batch; those that matter most first."""
    sizes = sorted(batches(folder), key=lambda size: (size not in _BATCHES_FIRST, size))
    return [f"{way}, {size}" for way in (*_MODES, _TENSORRT) for size in sizes]


def opened(_folder: Path, _wanted: Sequence[str]) -> Check:
    """Nothing is opened: PyTorch is imported by the first unit."""
    return _compile


def _compile(unit: str) -> Iterator[Row]:
    from benchmarks.gpu import onnxruntime_opponents
    from benchmarks.gpu.opponents import OPPONENTS, mark, run_of

    way, _, text = unit.rpartition(", ")
    size, start = int(text), time.monotonic()
    provider = onnxruntime_opponents.PROVIDERS.get(way)
    if provider is None:
        opponent = next(each for each in OPPONENTS if each.way == way)
        name = opponent.name
        run_of(opponent, size, DEIT_SMALL)
    else:
        name = way
        if why := onnxruntime_opponents.missing(provider):
            yield Row(f"{name}, batch {size}", "skipped", why)
            return
        try:
            onnxruntime_opponents.run_of(provider, size, DEIT_SMALL)
        except Exception as err:  # whatever it is
            yield unable(f"{name}, batch {size}", err)
            return
    mark(way, size).touch()
    yield Row(f"{name}, batch {size}", "figure", "", {"compiled_in_s": time.monotonic() - start})
