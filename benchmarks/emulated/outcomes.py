"""What every program gave, held against the artefact of this machine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import gsb_tvm
from comparison.models import exported, input_shape
from emulated.programs import emulator, programs
from gsb_tvm import console
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime.verify import EXACT
from gsb_tvm.targets import resolve
from measuring.arguments import PRESETS

_TITLES = ("model", "CPU", "program", "images", "same bits", "exact", "error")


@dataclass(frozen=True)
class Outcome:
    """How one program's outputs compare with those of this machine's artefact.

    Attributes
    ----------
    same
        Images with equal bits in every output.
    exact
        Images whose error is within the contract (:data:`gsb_tvm.runtime.verify.EXACT`).
    error
        Largest difference over the image's largest output.
    """

    model: str
    cpu: str
    program: str
    images: int
    same: int
    exact: int
    error: float


def outcomes(
    models: Sequence[str], cpus: Sequence[str], images: int, work: Path, say: Callable[[str], None]
) -> list[Outcome]:
    """Run every model on every CPU in every kind of program.

    Raises
    ------
    ToolchainError
        An emulator, a compiler or CMake is missing, or failed.
    """
    profiles = [resolve(f"llvm -mcpu={cpu}") for cpu in cpus]
    for profile in profiles:
        emulator(profile)  # so that all are refused before the first is compiled for
    found = []
    for model in models:
        path = _file(model, work)
        shape = input_shape(path)
        drawn = np.random.default_rng(3).standard_normal((images, *shape), dtype=np.float32)
        say(f"{model}: compiling for this machine")
        module = gsb_tvm.build(path)
        expected = np.stack([np.asarray(module(image)) for image in drawn])
        for profile in profiles:
            say(f"{model}: building for {profile.mcpu}")
            folder = work / f"{Path(model).stem}-{profile.mcpu}"
            for name, run in programs(path, profile, folder):
                say(f"{model}: {name} on {profile.mcpu}")
                got = np.stack([run(image).reshape(expected.shape[1:]) for image in drawn])
                found.append(Outcome(model, profile.mcpu, name, images, *_compare(got, expected)))
    return found


def _file(model: str, work: Path) -> Path:
    if model == "demo":
        return model_path()
    return exported(model, "gsb", 1, work) if model in PRESETS else Path(model)


def _compare(got: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[int, int, float]:
    """Images of equal bits, exact images, and the largest error; the first axis is images."""
    differences, largest = (
        np.abs(x).reshape(len(x), -1).max(1) for x in (got - expected, expected)
    )
    errors = differences / largest
    same = (got == expected).reshape(len(got), -1).all(1)
    return int(same.sum()), int((errors < EXACT).sum()), float(errors.max())


def table(found: Sequence[Outcome]) -> Table:
    """A row for each program."""
    return console.figures(_TITLES, [_cells(each) for each in found], texts=3)


def _cells(each: Outcome) -> Iterator[str]:
    yield from (each.model, each.cpu, each.program)
    yield from map(str, (each.images, each.same, each.exact))
    yield f"{each.error:.1e}"
