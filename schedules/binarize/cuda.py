"""Norm, shift, comparison and packing on CUDA: warps for each token, a ballot for each word.

Memory is the bound: 4 bytes in for each bit out, which leaves some 25 instructions for an element.
A row stays in registers (:mod:`token_rows`), several share what is read of their features, and one
reciprocal divides all of a row.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Binarize, Kind
from gsb_tvm.schedules.binarize.formula import DEVIATION_HIGH, DEVIATION_LOW
from gsb_tvm.schedules.cuda import token_rows
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.floats import fused, is_nonzero
from gsb_tvm.schedules.cuda.grid import launch, prim_func, registers, synchronize
from gsb_tvm.schedules.cuda.token_rows import Block, Parameters, Tokens, Word
from gsb_tvm.schedules.cuda.warp import ballot
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]

_EVERY_LANE = 0xFFFFFFFF

Values = Callable[[Word], list[Expr]]  # what is compared, of each token


def _planes(spec: Binarize) -> int:
    return 1 + (spec.compare.kind is Kind.MASKED)


def rule(spec: Binarize, profile: Profile) -> Parameters:
    """Blocks for all multiprocessors."""
    return token_rows.rule(spec.rows, _planes(spec), profile)


def space(spec: Binarize, _profile: Profile) -> Iterator[Parameters]:
    """More or fewer tokens and warps of a block."""
    yield from token_rows.space(spec.rows, _planes(spec))


def kernel(spec: Binarize, _profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""

    def body(t: dict[str, Buffer]) -> None:
        flag = Flag(t["out_zeros"]) if _planes(spec) == 2 else None
        with launch((parameters.blocks(spec.rows),), parameters.threads) as place:
            block = Block(spec.rows, parameters, place, _planes(spec))
            missing = registers(1, "uint32")
            put(missing, T.uint32(0), 0)
            block.each_tokens(t["x"], lambda tokens: _Writer(spec, t, tokens, missing).write())
            synchronize()
            names = ("out_bits", "out_nonzero")[: _planes(spec)]
            block.store([(t[name], ()) for name in names])
            if flag is not None:
                flag.write(place, parameters.blocks(spec.rows), missing[0] != 0)

    return prim_func([*spec.inputs(), *spec.outputs()], body)


@dataclass(frozen=True)
class _Norm:
    """Of one token: its mean, and the deviation that it is divided by."""

    mean: Expr
    deviation: Expr


class _Writer:
    """Writes words of the tokens that a warp has at once; bits of zeros gather in ``missing``."""

    def __init__(
        self, spec: Binarize, t: dict[str, Buffer], tokens: Tokens, missing: Buffer
    ) -> None:
        self._spec, self._t, self._tokens, self._missing = spec, t, tokens, missing

    def write(self) -> None:
        """All words; every thread of the block must come."""
        self._tokens.hold()
        if not self._spec.norm:
            self._words(True, lambda word: [word.read(k) for k in range(self._tokens.count)])
            return
        norms = self._norms()
        usual: Expr = T.bool(True)
        for norm in norms:
            low, high = T.float32(DEVIATION_LOW), T.float32(DEVIATION_HIGH)
            usual = T.And(usual, T.And(norm.deviation >= low, norm.deviation <= high))
        # A ballot, though all lanes say the same: the compiler does not know that they do.
        with T.If(ballot(usual) == T.uint32(_EVERY_LANE)):
            with T.Then():
                self._words(True, self._quotients(norms))
            with T.Else():
                self._words(False, self._divided(norms))

    def _norms(self) -> list[_Norm]:
        tokens, count = self._tokens, tirx.const(self._spec.rows.features, "float32")
        means = [bind(total / count) for total in tokens.sums(lambda _, total, x: total + x)]

        def with_square(k: int, total: Expr, x: Expr) -> Expr:
            centred = bind(x - means[k])
            return fused(centred, centred, total)

        variances = [bind(total / count) for total in tokens.sums(with_square)]
        eps = tirx.const(self._spec.eps, "float32")
        deviations = [bind(T.sqrt(variance + eps)) for variance in variances]
        return [_Norm(*pair) for pair in zip(means, deviations, strict=True)]

    def _divided(self, norms: list[_Norm]) -> Values:
        return lambda word: [
            bind((word.read(k) - norm.mean) / norm.deviation) for k, norm in enumerate(norms)
        ]

    def _quotients(self, norms: list[_Norm]) -> Values:
        """The same quotients, rounded the same: :func:`gsb_tvm.schedules.binarize.formula`."""
        reciprocals = [bind(T.float32(1) / norm.deviation) for norm in norms]
        negatives = [bind(T.float32(0) - norm.deviation) for norm in norms]

        def quotient(k: int, x: Expr) -> Expr:
            q = bind(x * reciprocals[k])
            return fused(fused(q, negatives[k], x), reciprocals[k], q)

        return lambda word: [
            quotient(k, bind(word.read(k) - norm.mean)) for k, norm in enumerate(norms)
        ]

    def _words(self, held: bool, values: Values) -> None:
        spec, t = self._spec, self._t
        for word in self._tokens.each_word(held):
            names = (["gamma", "beta"] if spec.norm else []) + (["shift"] if spec.shift else [])
            of_feature = [bind(t[name][word.feature]) for name in names]
            for k, value in enumerate(values(word)):
                u = value
                for name, operand in zip(names, of_feature, strict=True):
                    u = u * operand if name == "gamma" else u + operand
                self._keep(word, self._tokens.at[k], bind(u))

    def _keep(self, word: Word, at: Expr, u: Expr) -> None:
        compare, block = self._spec.compare, self._tokens.block
        bound = tirx.const(compare.bound, "float32")
        above = u > bound if compare.strict else u >= bound
        if compare.kind is not Kind.MASKED:
            block.keep(0, word, at, above)
            return
        nonzero = is_nonzero(u)
        is_sign = compare.strict and compare.bound == 0
        block.keep(0, word, at, above if is_sign else T.And(above, nonzero))
        found = block.keep(1, word, at, nonzero)
        put(self._missing, self._missing[0] | (~found & word.real), 0)
