"""A kernel's phases cut into parts that run one after another, forwards or backwards."""

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from tvm import tirx

from gsb_tvm.schedules.sharing import MOST_PARTS, is_phase, statements, with_parts
from gsb_tvm.schedules.vector import in_root_block

PARTS = (1, 2, 3, MOST_PARTS)


@dataclass(frozen=True)
class Cut:
    """``parts`` of every phase; backwards, the last one first.

    Both orders give the same where no part reads what another one of its phase writes, and where
    two write the same element, they write the same.
    """

    parts: int = 1
    backwards: bool = False

    def __call__(self, func: tirx.PrimFunc) -> tirx.PrimFunc:
        """``func`` with its phases cut."""
        func = with_parts(func, self.parts)
        return _backwards(func) if self.backwards else func


WHOLE = Cut()
CUTS = st.builds(Cut, st.sampled_from(PARTS), st.booleans())


def _backwards(func: tirx.PrimFunc) -> tirx.PrimFunc:
    body = tirx.stmt_seq(*[_turned(s) if is_phase(s) else s for s in statements(func)])
    return in_root_block(func.with_body(body))


def _turned(phase: Any) -> Any:
    """``for part: body`` as ``for i: part = parts - 1 - i; body``.

    As ``parts + ~i``, of which TVM knows nothing: it simplifies ``(1 - i) % 2`` to ``i``.
    """
    parts, loop = phase.loop_var, phase.body
    i = tirx.Var("i", "int32")
    body = tirx.stmt_seq(tirx.Bind(loop.loop_var, parts + tirx.bitwise_not(i)), loop.body)
    inner = tirx.For(i, loop.min, loop.extent, loop.kind, body)
    return tirx.For(
        parts, phase.min, phase.extent, phase.kind, inner, annotations=phase.annotations
    )
