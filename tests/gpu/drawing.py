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
from tests.gpu.folder import Case, Reference, stored
from tests.gpu.widening import widened

Array = NDArray[Any]

_RUNS = 5  # one in six images of DeiT-Small lies on an edge that two runs tell apart
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


def images(spec: meta.Tensor, reference: Reference) -> list[Array]:
    """Inputs of the calls of a reference."""
    rng = np.random.default_rng(reference.seed)
    return [draw(sized(spec, reference.batch), rng) for _ in range(reference.count)]


def digest(drawn: Sequence[Array]) -> str:
    """SHA-256 of inputs, to know them again."""
    found = hashlib.sha256()
    for x in drawn:
        found.update(np.ascontiguousarray(x).tobytes())
    return found.hexdigest()


def nudged(drawn: Sequence[Array]) -> Iterator[list[Array]]:
    """The inputs as they are, then scaled by so little that rounding alone differs."""
    for run in range(_RUNS):
        factor = np.float32(1 + run * _NUDGE)
        yield [x * factor for x in drawn]
