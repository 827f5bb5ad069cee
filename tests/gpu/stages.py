"""The stages, by worth: what comes first is still known where the time ends early."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from tests.gpu.rows import Row

Check = Callable[[str], Iterator[Row]]
"""Does one unit of a stage."""


class Module(Protocol):
    """What the module of a stage has."""

    def units(self, folder: Path) -> Sequence[str]:
        """What there is to do, without a GPU."""

    def opened(self, folder: Path, units: Sequence[str]) -> Check:
        """Open the GPU and what is checked."""


@dataclass(frozen=True)
class Stage:
    """A part of the command, in a process of its own.

    Attributes
    ----------
    limit_s, unit_s
        Time for all of it, and for one unit.
    """

    name: str
    module: str
    limit_s: float
    unit_s: float

    @property
    def is_timed(self) -> bool:
        """Whether nothing else may run beside it."""
        return ".timed_" in self.module

    def load(self) -> Module:
        """Its module."""
        return import_module(self.module)  # type: ignore[return-value]


OPPOSED = Stage("models timed", "tests.gpu.timed_models", 140, 60)
STAGES = (
    Stage("environment", "tests.gpu.environment", 60, 30),
    Stage("kernels", "tests.gpu.kernel_checks", 120, 30),
    Stage("models", "tests.gpu.model_checks", 60, 30),
    Stage("sanitizer", "tests.gpu.sanitizing", 90, 90),
    Stage("tuner", "tests.gpu.tuner_checks", 30, 15),
    Stage("limits", "tests.gpu.timed_limits", 30, 15),
    OPPOSED,
    Stage("kernels timed", "tests.gpu.timed_kernels", 60, 15),
)
BESIDE = Stage("opponents compiled", "tests.gpu.compiled_opponents", 150, 120)
"""What "models timed" needs: begins with the first stage, ends before the first that times."""

WATCHED = Stage("watched kernels", "tests.gpu.watched_checks", 80, 80)
"""What "sanitizer" lets run under its tools."""

BY_NAME = {stage.name: stage for stage in (*STAGES, BESIDE, WATCHED)}
