"""One value of each part: written in one phase, combined in a later one."""

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.sharing import MOST_PARTS, Share, phase
from gsb_tvm.schedules.vector import Buffer, Expr, bind, local, put


class Slots:
    """A value of ``dtype`` for each part; made outside the phases."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._values = local((MOST_PARTS,), dtype)

    def put(self, share: Share, value: Expr) -> None:
        """Write this part's value."""
        put(self._values, value, share.part)

    def own(self, share: Share) -> Expr:
        """The value that this part wrote in an earlier phase."""
        return bind(self._values[share.part])

    def combined(self, share: Share, combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """The values of all parts, written in an earlier phase, as one."""
        total = local((1,), self._dtype)
        put(total, self._values[0], 0)
        with T.serial(1, share.parts) as part:
            put(total, combine(total[0], self._values[part]), 0)
        return bind(total[0])


class Flag:
    """A flag int32[1] of the whole output, which every part may raise; made outside the phases."""

    def __init__(self, flag: Buffer) -> None:
        self._flag = flag
        self._raised = Slots("uint32")

    def put(self, share: Share, missing: Expr) -> None:
        """Say whether this part raises the flag: where the uint32 ``missing`` is not 0."""
        self._raised.put(share, missing)

    def write(self) -> None:
        """Emit the phase that writes the flag."""
        with phase() as share, T.If(share.is_first), T.Then():
            missing = self._raised.combined(share, lambda a, b: a | b)
            put(self._flag, T.Cast("int32", missing != tirx.const(0, "uint32")), 0)
