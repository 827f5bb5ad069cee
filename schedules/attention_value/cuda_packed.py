"""What fragments of products on tensor cores become: words of channels."""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.attention_value.cuda_output import Output
from gsb_tvm.schedules.cuda.grid import registers
from gsb_tvm.schedules.cuda.tile import MMA_COLUMNS
from gsb_tvm.schedules.cuda.warp import word_of_quad
from gsb_tvm.schedules.vector import Expr, bind, put


class Packed:
    """Words of channels being gathered: of each tile of queries the upper and the lower half."""

    def __init__(self, output: Output, tiles: int) -> None:
        self._output = output
        self._tests = [output.bit]
        if output.masked:
            self._tests.append(lambda value: value < T.float32(0))
        self._gathered = [registers(tiles * 2, "uint32") for _ in self._tests]
        for gathered in self._gathered:
            for i in range(tiles * 2):
                put(gathered, T.uint32(0), i)

    def add(self, m: int, half: int, n: int, values: list[Expr]) -> None:
        """Two neighbouring channels, of which this lane's are the first of four lanes'."""
        at = m * 2 + half
        for gathered, test in zip(self._gathered, self._tests, strict=True):
            found = gathered[at]
            for j, value in enumerate(values):
                bit = T.uint32(1 << (n * MMA_COLUMNS + j))
                found = found | T.Select(test(value), bit, T.uint32(0))
            put(gathered, found, at)

    def write(self, rows: list[Expr], word: Expr, member: Expr) -> None:
        """Put lanes' bits together and write the words."""
        for m, row in enumerate(rows):
            for half in range(2):
                united = [word_of_quad(own[m * 2 + half], member) for own in self._gathered]
                bits, below = (*united, None)[:2]
                self._output.write_word(bind(row + half * 8), word, bits, below, member == 0)
