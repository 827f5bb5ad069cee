"""What kernels and models are checked on: drawn from seeds, so that nothing of it is carried."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.specs import decode
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.batches import sized
from gsb_tvm.runtime.verify import draw
from gsb_tvm.tuning.samples import Sample, sample
from tests.gpu.folder import Case, stored
from tests.gpu.widening import widened

Array = NDArray[Any]

IMAGES = 8  # of a set whose calls take one each
_RUNS = 5
# Moves what a network rounds by as much as another order of summation does: runtime/reference.py.
_NUDGE = 2.0**-22


def samples(drawn: str) -> list[Sample]:
    """Inputs of an operator and what must come out: masked planes without zeros, then with some."""
    spec = decode(drawn)
    return [sample(spec, np.random.default_rng(0), zeros=zeros) for zeros in (False, True)]


def samples_of(folder: Path, case: Case, drawn: Callable[[str], Sequence[Sample]]) -> list[Sample]:
    """Samples of a kernel: those stored, or those of fewer images, which ``drawn`` gives."""
    if not case.spec:
        return [_stored(folder, case)]
    few, all_of_them = decode(case.drawn), decode(case.spec)
    return [widened(each, few, all_of_them) for each in drawn(case.drawn)]


def _stored(folder: Path, case: Case) -> Sample:
    arrays = np.load(stored(folder, case))
    inputs, outputs = (
        [arrays[name] for name in arrays.files if name.startswith(kind)]
        for kind in ("input", "output")
    )
    return Sample(inputs, outputs, [None] * len(outputs), case.tolerance, case.edges)


def images(spec: meta.Tensor, drawn: int, seed: int) -> Array:
    """Images that a CPU's artefact for a batch of ``drawn`` takes at once, or one by one."""
    count = IMAGES if drawn == 1 else drawn
    return draw(sized(spec, count), np.random.default_rng(seed))


def digest(spec: meta.Tensor, drawn: int, seeds: Sequence[int]) -> str:
    """SHA-256 of images, to know them again."""
    found = hashlib.sha256()
    for seed in seeds:
        found.update(images(spec, drawn, seed).tobytes())
    return found.hexdigest()


def nudged(x: Array) -> Iterator[Array]:
    """Images as they are, then scaled by so little that rounding alone differs."""
    for run in range(_RUNS):
        yield x * np.float32(1 + run * _NUDGE)
