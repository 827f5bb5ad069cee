"""GSB's nested planes of values on CUDA: signs and extremes, then masks.

Two launches, because the extremes are those of the whole tensor. Memory is the bound: the floats
are read twice, the second time from the cache where they fit.
"""

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules.cuda import token_rows
from gsb_tvm.schedules.cuda.extremes import Extremes
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.floats import is_nan, is_nonzero
from gsb_tvm.schedules.cuda.grid import launch, prim_func, registers, synchronize
from gsb_tvm.schedules.cuda.token_rows import Block, Parameters, Row, Word
from gsb_tvm.schedules.vector import Buffer, Expr, bind, maximum, put
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]


def _planes(spec: ValuePlanes) -> int:
    """Planes that the larger launch writes."""
    return max(1 + (spec.kind is Kind.MASKED), len(spec.ratios))


def rule(spec: ValuePlanes, profile: Profile) -> Parameters:
    """Blocks for all multiprocessors."""
    return token_rows.rule(spec.rows, _planes(spec), profile)


def space(spec: ValuePlanes, _profile: Profile) -> Iterator[Parameters]:
    """More or fewer tokens and warps of a block."""
    yield from token_rows.space(spec.rows, _planes(spec))


def kernel(spec: ValuePlanes, _profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""

    def body(t: dict[str, Buffer]) -> None:
        writer = _Writer(spec, parameters, t)
        writer.write_signs()
        writer.write_masks()

    return prim_func([*spec.inputs(), *spec.outputs()], body)


class _Writer:
    """A kernel being written."""

    def __init__(self, spec: ValuePlanes, parameters: Parameters, t: dict[str, Buffer]) -> None:
        self._spec, self._parameters, self._t = spec, parameters, t
        self._masked = spec.kind is Kind.MASKED
        self._extremes = Extremes(2)
        self._flag = Flag(t["out_zeros"]) if self._masked else None
        self._blocks = parameters.blocks(spec.rows)

    def write_signs(self) -> None:
        """The first launch."""
        with launch((self._blocks,), self._parameters.threads) as place:
            block = Block(self._spec.rows, self._parameters, place, 1 + self._masked)
            found = registers(2, "float32")
            missing = registers(1, "uint32")
            for i in range(2):
                put(found, tirx.const(float("-inf"), "float32"), i)
            put(missing, T.uint32(0), 0)
            block.each_token(
                self._t["x"], lambda row, at: self._signs(block, row, at, found, missing)
            )
            for i in range(2):
                self._extremes.take(i, found[i])
            synchronize()
            names = ("out_bits", "out_nonzero")[: 1 + self._masked]
            block.store([(self._t[name], ()) for name in names])
            if self._flag is not None:
                self._flag.write(place, self._blocks, missing[0] != 0)

    def write_masks(self) -> None:
        """The second launch."""
        ratios = self._spec.ratios
        with launch((self._blocks,), self._parameters.threads) as place:
            block = Block(self._spec.rows, self._parameters, place, max(1, len(ratios)))
            highest = self._extremes.read(0)
            lowest = bind(T.float32(0) - self._extremes.read(1))
            block.each_token(
                self._t["x"], lambda row, at: self._masks(block, row, at, highest, lowest)
            )
            self._extremes.forget(place, self._blocks)
            block.store([(self._t["masks"], (r,)) for r in range(len(ratios))])

    def _u(self, word: Word) -> Expr:
        x = word.read()
        if not self._spec.shift:
            return x
        feature = T.min(word.feature, self._spec.rows.features - 1)
        return bind(x + self._t["shift"][feature])

    def _signs(self, block: Block, row: Row, at: Expr, found: Buffer, missing: Buffer) -> None:
        for word in row.each_word():
            u = self._u(word)
            for i, value in enumerate((u, T.float32(0) - u)):
                larger = T.Select(is_nan(value), value, maximum(found[i], value))
                stays = T.Or(is_nan(found[i]), T.Not(word.exists))
                put(found, T.Select(stays, found[i], larger), i)
            above = u > T.float32(0)
            if not self._masked:
                block.keep(0, word, at, above)
                continue
            nonzero = is_nonzero(u)
            block.keep(0, word, at, above)
            kept = block.keep(1, word, at, nonzero)
            put(missing, missing[0] | (~kept & word.real), 0)

    def _masks(self, block: Block, row: Row, at: Expr, highest: Expr, lowest: Expr) -> None:
        for word in row.each_word():
            u = self._u(word)
            for r, ratio in enumerate(self._spec.ratios):
                factor = tirx.const(ratio, "float32")
                outside = T.Or(u > factor * highest, u < factor * lowest)
                block.keep(r, word, at, outside)
