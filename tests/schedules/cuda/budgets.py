"""What functions on GPUs take, as a table for people."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PROPERTY = "budget"
"""Of a test's report: a row of a :class:`Budget`."""


@dataclass(frozen=True)
class Budget:
    """Registers of a thread and bytes of shared memory of a block, on one architecture."""

    group: str
    function: str
    arch: str
    registers: int
    shared_bytes: int

    def row(self) -> list[str | int]:
        """What a report can carry from one process to another."""
        return [self.group, self.function, self.arch, self.registers, self.shared_bytes]


def table(rows: Iterable[list[str | int]]) -> Iterator[str]:
    """A line for each function and a column for each architecture: registers, shared bytes."""
    budgets = [Budget(*row) for row in rows]  # type: ignore[arg-type]
    archs = sorted({b.arch for b in budgets}, key=lambda arch: int(arch.removeprefix("sm_")))
    cells = {(b.group, b.function, b.arch): f"{b.registers} {b.shared_bytes}" for b in budgets}
    functions = dict.fromkeys((b.group, b.function) for b in budgets)
    width = max(len(" ".join(each)) for each in functions)
    yield " " * width + "".join(f"{arch:>11}" for arch in archs)
    for each in functions:
        columns = (cells.get((*each, arch), "") for arch in archs)
        yield f"{' '.join(each):{width}}" + "".join(f"{cell:>11}" for cell in columns)
