"""Norm, shift, comparison and packing on CUDA: a warp for each token, a ballot for each word.

Memory is the bound: 4 bytes in for each bit out. A row that is not too long is read once and stays
in registers; a longer one is read again for the mean, the variance and the comparison.
"""

from collections.abc import Callable, Iterator
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Binarize, Kind
from gsb_tvm.schedules.cuda import token_rows
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.floats import is_nonzero
from gsb_tvm.schedules.cuda.grid import launch, prim_func, registers, synchronize
from gsb_tvm.schedules.cuda.token_rows import Block, Parameters, Row
from gsb_tvm.schedules.cuda.warp import combined
from gsb_tvm.schedules.vector import Buffer, Expr, add, bind, put
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]


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
            block.each_token(t["x"], lambda row, at: _token(spec, t, block, row, at, missing))
            synchronize()
            names = ("out_bits", "out_nonzero")[: _planes(spec)]
            block.store([(t[name], ()) for name in names])
            if flag is not None:
                flag.write(place, parameters.blocks(spec.rows), missing[0] != 0)

    return prim_func([*spec.inputs(), *spec.outputs()], body)


def _token(
    spec: Binarize, t: dict[str, Buffer], block: Block, row: Row, at: Expr, missing: Buffer
) -> None:
    """Words of a token; bits of zeros gather in ``missing``."""
    normed = _normed(spec, t, row)
    bound = tirx.const(spec.compare.bound, "float32")
    for word in row.each_word():
        u = bind(normed(word.read(), word.feature))
        above = u > bound if spec.compare.strict else u >= bound
        if spec.compare.kind is not Kind.MASKED:
            block.keep(0, word, at, above)
            continue
        nonzero = is_nonzero(u)
        block.keep(0, word, at, T.And(above, nonzero))
        found = block.keep(1, word, at, nonzero)
        put(missing, missing[0] | (~found & word.real), 0)


def _normed(spec: Binarize, t: dict[str, Buffer], row: Row) -> Callable[[Expr, Expr], Expr]:
    """What becomes of an element of a feature, every step rounded."""
    mean = deviation = None
    if spec.norm:
        count = tirx.const(spec.rows.features, "float32")
        mean = bind(combined(row.sum(lambda x: x), "float32", add) / count)

        def squared(x: Expr) -> Expr:
            centred = bind(x - mean)
            return centred * centred

        variance = bind(combined(row.sum(squared), "float32", add) / count)
        deviation = bind(T.sqrt(variance + tirx.const(spec.eps, "float32")))

    def normed(x: Expr, feature: Expr) -> Expr:
        u = x
        if spec.norm:
            u = (x - mean) / deviation * t["gamma"][feature] + t["beta"][feature]
        return u + t["shift"][feature] if spec.shift else u

    return normed
