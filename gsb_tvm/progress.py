"""Telling whoever is interested where a compilation is, and how long each phase took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Observer(Protocol):
    """Is told where a compilation is."""

    def phase(self, name: str, steps: int) -> None:
        """Note that a phase of ``steps`` steps begins, and that the one before it has ended."""

    def step(self, name: str) -> None:
        """Note that a step of the phase begins."""


class Silent:
    """The observer that does nothing."""

    def phase(self, name: str, steps: int) -> None:
        """Ignore it."""

    def step(self, name: str) -> None:
        """Ignore it."""


class Clock:
    """Passes phases on to an observer and keeps their times.

    Attributes
    ----------
    seconds
        Time by phase, in the order of their first begin; one that begins again adds up.
    """

    def __init__(self, observer: Observer) -> None:
        self.seconds: dict[str, float] = {}
        self._observer = observer
        self._part = ""

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Name the part of the work that the phases inside belong to; "" for all of it."""
        self._part = f" ({name})" if name else ""
        try:
            yield
        finally:
            self._part = ""

    @contextmanager
    def phase(self, name: str, steps: int = 1) -> Iterator[Observer]:
        """Time what is done inside; yields the observer, to be told of steps."""
        self._observer.phase(f"{name}{self._part}", steps)
        start = time.perf_counter()
        try:
            yield self._observer
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
