"""A flag that all blocks of a launch raise together, written by the last of them."""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.cuda.grid import Place, address, call, last_of, state
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put


class Flag:
    """``flag[0]`` becomes 1 where any thread of any block says so, else 0."""

    def __init__(self, flag: Buffer) -> None:
        self._flag, self._state = flag, state("flag", 2)

    def write(self, place: Place, blocks: int, raised: Expr) -> None:
        """Say what this thread found; every thread of every block must, once."""
        raised_here = bind(call("gsb_any_of_block", raised, dtype="bool"))
        found, ended = (address(self._state, i) for i in range(2))
        with T.If(place.thread == 0), T.Then():
            with T.If(raised_here), T.Then():
                T.evaluate(call("gsb_atomic_or", found, T.int32(1), dtype="int32"))
            with last_of(blocks, ended):
                put(self._flag, call("gsb_atomic_exchange", found, T.int32(0), dtype="int32"), 0)
                put(self._state, T.int32(0), 1)
