"""GSB's nested planes of values on CUDA: signs and extremes, then masks.

Two launches, because the extremes are those of the whole tensor. Memory is the bound: the first
launch reads the floats and leaves the extremes of every row, by which the second knows the rows
that masks have bits of; few do, and only those are read again.
"""

from collections.abc import Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules.cuda import token_rows
from gsb_tvm.schedules.cuda.extremes import Extremes
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.floats import fused, is_nonzero, larger, smaller
from gsb_tvm.schedules.cuda.grid import launch, prim_func, registers, scratch, synchronize
from gsb_tvm.schedules.cuda.token_rows import Block, Parameters, Tokens, Word
from gsb_tvm.schedules.cuda.warp import ballot, combined
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]

_COMBINE = (larger, smaller)
_START = (float("-inf"), float("inf"))


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
        # What each warp finds of a row, largest and smallest.
        count = spec.rows.batch * spec.rows.tokens
        self._of_rows = scratch("of_rows", (2, parameters.parts, count), "float32")
        self._flag = Flag(t["out_zeros"]) if self._masked else None
        self._blocks = parameters.blocks(spec.rows)

    def write_signs(self) -> None:
        """The first launch."""
        with launch((self._blocks,), self._parameters.threads) as place:
            block = Block(self._spec.rows, self._parameters, place, 1 + self._masked)
            found = registers(2, "float32")
            missing = registers(1, "uint32")
            for i, start in enumerate(_START):
                put(found, tirx.const(start, "float32"), i)
            put(missing, T.uint32(0), 0)
            block.each_tokens(self._t["x"], lambda tokens: self._signs(tokens, found, missing))
            self._extremes.take_of_block(place, [found[0], T.float32(0) - found[1]])
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
            # Products that TVM does not know: it takes 0 times infinity for 0.
            bounds = [
                [fused(tirx.const(r, "float32"), e, T.float32(0)) for e in (highest, lowest)]
                for r in ratios
            ]
            block.clear()
            block.each_tokens(self._t["x"], lambda tokens: self._masks(tokens, bounds), 1)
            self._extremes.forget(place, self._blocks)
            block.store([(self._t["masks"], (r,)) for r in range(len(ratios))])

    def _operand(self, word: Word) -> Expr | None:
        return bind(self._t["shift"][word.feature]) if self._spec.shift else None

    def _signs(self, tokens: Tokens, found: Buffer, missing: Buffer) -> None:
        block = tokens.block
        tokens.hold()
        of_rows = registers(2 * tokens.count, "float32")
        for k in range(tokens.count):
            for i, start in enumerate(_START):
                put(of_rows, tirx.const(start, "float32"), 2 * k + i)
        for word in tokens.each_word():
            shift = self._operand(word)
            for k, at in enumerate(tokens.at):
                u = word.read(k) if shift is None else bind(word.read(k) + shift)
                for i, combine in enumerate(_COMBINE):
                    put(of_rows, combine(of_rows[2 * k + i], u), 2 * k + i)
                block.keep(0, word, at, u > T.float32(0))
                if self._masked:
                    kept = block.keep(1, word, at, is_nonzero(u))
                    put(missing, missing[0] | (~kept & word.real), 0)
        for k, row in enumerate(tokens.rows):
            for i, combine in enumerate(_COMBINE):
                extreme = combined(of_rows[2 * k + i], "float32", combine)
                put(found, combine(found[i], extreme), i)
                with T.If(block.place.lane == 0), T.Then():
                    put(self._of_rows, extreme, i, block.part, row)

    def _masks(self, tokens: Tokens, bounds: list[list[Expr]]) -> None:
        """Masks of one token."""
        block = tokens.block
        largest, smallest = (self._of_rows[i, block.part, tokens.rows[0]] for i in range(2))
        largest, smallest = bind(largest), bind(smallest)
        reaches: Expr = T.bool(False)
        for high, low in bounds:
            reaches = T.Or(reaches, T.Or(largest > high, smallest < low))
        # A ballot, though all lanes say the same: the compiler does not know that they do.
        with T.If(ballot(reaches) != T.uint32(0)), T.Then():
            tokens.hold()
            for word in tokens.each_word():
                shift = self._operand(word)
                u = word.read(0) if shift is None else bind(word.read(0) + shift)
                for r, (high, low) in enumerate(bounds):
                    block.keep(r, word, tokens.at[0], T.Or(u > high, u < low))
