"""Instructions of a call by kernel: which take them, and how much work each does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from counting.ours import Counted
from counting.plugin import Block
from gsb_tvm.step_work import work_of


@dataclass(frozen=True)
class Row:
    """Steps that do the same: a kernel on equal shapes.

    Attributes
    ----------
    instructions, macs
        Of all ``calls`` together; macs is 0 where there is no product.
    blocks
        Code that ran in them.
    """

    kind: str
    kernel: str
    shape: str
    calls: int
    instructions: int
    macs: int
    blocks: tuple[Block, ...] = ()

    @property
    def rate(self) -> float | None:
        """Multiply-accumulates an instruction."""
        return self.macs / self.instructions if self.macs else None


def rows(counted: Counted, name: str) -> list[Row]:
    """Steps summed by kernel, the longest first.

    Raises
    ------
    ArtefactError
        The model called ``name`` does not say what its steps do.
    """
    works = work_of(counted.program, name)
    steps = zip(counted.program.steps, works, counted.steps, counted.step_blocks, strict=True)
    found: dict[tuple[str, str], list[Row]] = {}
    for step, work, instructions, blocks in steps:
        row = Row(work.kind, step.kernel, work.shape, 1, instructions, work.macs or 0, blocks)
        found.setdefault((step.kernel, work.shape), []).append(row)
    return _longest_first(map(_sum, found.values()))


def by_kind(rows: Sequence[Row]) -> list[Row]:
    """Rows summed by kind of operator, the longest first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.kind, []).append(row)
    return _longest_first(map(_sum, found.values()))


def _sum(rows: Sequence[Row]) -> Row:
    first = rows[0]
    return Row(
        first.kind,
        first.kernel,
        first.shape,
        sum(row.calls for row in rows),
        sum(row.instructions for row in rows),
        sum(row.macs for row in rows),
        tuple(block for row in rows for block in row.blocks),
    )


def _longest_first(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row.instructions, reverse=True)
