"""Sharing a kernel's work among threads: phases, and each thread's part of a phase.

A kernel that can be shared is a sequence of *phases*. Inside a phase nothing waits for another
part; between two phases every part has finished the first (a barrier stands there). What a later
phase needs of all parts goes through the kernel's outputs or through buffers allocated outside
the phases; what is allocated inside one belongs to one part.

As written, a kernel runs its parts one after another on one thread: ``parts`` is the only value of
a loop, ``part`` runs below it. That form is plain TIR, is what tests compare with the oracle, for
any number of parts (:func:`with_parts`), and is what Relax calls. The artefact's entry function
takes the phases apart (:mod:`gsb_tvm.runtime.entry`) and gives every thread its part.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.dialect.phases import PHASE, is_phase, statements
from gsb_tvm.schedules.vector import in_root_block

Expr = Any

__all__ = ["MOST_PARTS", "Share", "is_phase", "phase", "statements", "with_parts"]


@dataclass(frozen=True)
class Share:
    """One part of ``parts``, int32 expressions with 0 <= part < parts <= MOST_PARTS."""

    part: Expr
    parts: Expr

    def span(self, count: int) -> tuple[Expr, Expr]:
        """First and one past the last of this part's units of ``count``; sizes differ by one.

        Both lie in [0, count] anyway; clamped, LLVM knows it too, and spares every index below a
        sign extension: 3 % of the counting loop on AVX2. They pass through memory, of which TVM
        knows nothing, lest it writes the whole expression wherever one of them is used.
        """
        ends = T.alloc_buffer((2,), "int32", scope="global")
        for i in range(2):
            T.buffer_store(ends, T.floordiv(T.int32(count) * (self.part + i), self.parts), [i])
        first, end = [T.Bind(T.max(T.min(ends[i], count), 0)) for i in range(2)]
        return first, end

    @property
    def is_first(self) -> Expr:
        """Whether this is part 0, which does what only one may do."""
        return self.part == 0

    @property
    def is_last(self) -> Expr:
        """Whether this is the last part, which takes what does not fill a whole unit."""
        return self.part == self.parts - 1


@contextmanager
def phase() -> Iterator[Share]:
    """Emit a phase; its body is written once, for the part that is given."""
    with T.serial(1, 2, annotations={PHASE: True}) as parts, T.serial(0, parts) as part:
        # Bound, since TVM moves loops to start at 0 and forgets the extents of those inside.
        yield Share(part, T.Bind(parts))


def with_parts(func: tirx.PrimFunc, parts: int) -> tirx.PrimFunc:
    """The kernel with every phase cut into ``parts`` parts, run one after another."""

    def cut(loop: Any) -> Any:
        if not is_phase(loop):
            return loop
        count = tirx.const(parts, "int32")
        return tirx.For(
            loop.loop_var, count, loop.extent, loop.kind, loop.body, annotations=loop.annotations
        )

    return in_root_block(func.with_body(tirx.stmt_seq(*map(cut, statements(func)))))
