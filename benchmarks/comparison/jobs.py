"""What a process of an engine is told, and what it answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

Array = np.ndarray
Run = Callable[[Array], Array]
"""From images, float32, to the first output."""


class Job(msgspec.Struct, frozen=True):
    """One engine on one model.

    Attributes
    ----------
    model
        The ONNX file, of the batch asked for.
    preset
        Name of the network where it is one of ours; else empty.
    images
        File with the input, .npy float32.
    calibration
        File with images for engines that quantise, .npy float32 (count, ...).
    artefact
        What :func:`prepare` of the engine gave; empty before.
    work
        Folder for prepared files.
    target
        Of our compiler and of stock TVM.
    isa
        "native", or the instruction set that engines are held to where they can be.
    cores
        Those to run on, one for each thread.
    priority
        SCHED_FIFO priority while timing; 0 for none.
    """

    engine: str
    model: str
    preset: str
    images: str
    calibration: str
    work: str
    batch: int
    target: str
    isa: str
    cores: tuple[int, ...]
    artefact: str = ""
    priority: int = 0

    @property
    def threads(self) -> int:
        """Number of threads."""
        return len(self.cores)

    def beside(self, ending: str) -> Path:
        """File in the work folder that is named after the model."""
        return Path(self.work) / f"{Path(self.model).stem}{ending}"


class Prepared(msgspec.Struct, frozen=True):
    """What preparing gave: files, of which the first is loaded, time and peak memory."""

    files: tuple[str, ...]
    seconds: float
    rss_mb: float

    @property
    def size_mb(self) -> float:
        """Size of all files."""
        return sum(Path(file).stat().st_size for file in self.files) / 1e6


class Verified(msgspec.Struct, frozen=True):
    """Outcome of a comparison with ONNX Runtime; see gsb_tvm/runtime/verify.py."""

    verdict: str
    exact: int
    ties: int
    samples: int
    reason: str


class Loaded(msgspec.Struct, frozen=True):
    """The first result is there; it lies in ``output``, a .npy file."""

    output: str
    rss_mb: float
    note: str


class Timed(msgspec.Struct, frozen=True):
    """Milliseconds of every run, and of the undisturbed ones."""

    every: tuple[float, ...]
    quiet: tuple[float, ...]
    rss_mb: float


class Failed(msgspec.Struct, frozen=True):
    """Why there is no result, in one line."""

    reason: str


class Turn(msgspec.Struct, frozen=True):
    """Order to time runs: so long, so many at most, after so many that do not count."""

    seconds: float
    most: int
    warm_up: int


def calibration_images(job: Job) -> list[Any]:
    """Images to quantise with, each repeated to the batch, float32."""
    images = np.load(job.calibration)
    return [np.repeat(image[None], job.batch, 0) for image in images]
