"""The form of a kernel that threads can share: the contract between kernels and the entry function.

The root block of such a kernel holds nothing but allocations and *phases*, in order. A phase is a
loop marked ``PHASE`` whose variable is the number of parts, around a loop over the parts::

    for parts in range(1, 2):      # marked
        for part in range(parts):
            ...                    # what part `part` of `parts` does

Inside a phase no part waits for another; when a phase begins, every part has finished the one
before. Buffers allocated between phases belong to all parts, those inside one to each part.
"""

from typing import Any

from tvm import s_tir, tirx

PHASE = "gsb.phase"
"""Annotation of the loop whose variable is the number of parts."""

SPEC = "gsb.spec"
"""Attribute of a packed operator's kernel: its specification as text."""

STATE = "state_"
"""Begins the names of buffers of a CUDA kernel that are zero before and behind every call."""

SYNCHRONIZED = "gsb.synchronized"
"""Attribute of a CUDA kernel that says itself where threads wait for each other."""

TUNED = "gsb.tuned"
"""Attribute of a kernel that records of tuning know: the parameters as text."""


def attribute(func: tirx.PrimFunc, name: str) -> str:
    """An attribute of a kernel as text; "" where it has none of that name."""
    return str((func.attrs or {}).get(name, ""))


def statements(func: tirx.PrimFunc) -> list[Any]:
    """Statements of a kernel's root block, in order; none where it has no such block."""
    if not isinstance(func.body, s_tir.SBlockRealize):
        return []
    body = func.body.block.body
    return list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]


def is_phase(statement: Any) -> bool:
    """Whether a statement of a kernel's root block is a phase."""
    return isinstance(statement, tirx.For) and PHASE in statement.annotations
