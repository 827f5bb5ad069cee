"""Rows of fewer than 32 features: scalars, since no vector of a word lies within the row."""

from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.schedules.binarize.formula import Emitter, affine, named, shared
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import Buffer, Expr, bind, local, prim_func, put


def kernel(spec: Binarize) -> Any:
    """PrimFunc for rows of fewer than 32 features."""

    def body(*tensors: Buffer) -> None:
        buffers = named(spec, tensors)
        shared(spec.compare, buffers, lambda emitter, share: _emit(spec, buffers, emitter, share))

    return prim_func([*spec.inputs(), *spec.outputs()], body)


def _emit(spec: Binarize, buffers: dict[str, Buffer], emitter: Emitter, share: Share) -> None:
    """Rows of the part's tokens, one after another."""
    rows = spec.rows
    stats = local((2,), "float32")
    collected = local((2,), "uint32")
    first, end = share.span(rows.tokens)
    with T.serial(0, rows.batch) as b, T.serial(first, end) as t:
        if spec.norm:
            _statistics(spec, buffers["x"], stats, b, t)
        with T.serial(0, rows.groups) as g:
            for plane in range(2):
                put(collected, tirx.const(0, "uint32"), plane)
            with T.serial(0, rows.width) as i:
                n = bind(g * rows.width + i)
                x = buffers["x"][b, t, n]
                if spec.norm:
                    x = (x - stats[0]) / stats[1]
                u = affine(x, *[_at(buffers, name, n) for name in ("gamma", "beta", "shift")])
                _collect(emitter, collected, bind(u), i)
            emitter.store([collected[0], collected[1]], 2**rows.width - 1, b, g, t)


def _at(buffers: dict[str, Buffer], name: str, n: Expr) -> Expr | None:
    return buffers[name][n] if name in buffers else None


def _collect(emitter: Emitter, collected: Buffer, u: Expr, i: Expr) -> None:
    """Put the bits of one element at position ``i``."""
    for plane, mask in enumerate(emitter.masks(u)):
        bit = T.Cast("uint32", mask) << T.Cast("uint32", i)
        put(collected, collected[plane] | bit, plane)


def _statistics(spec: Binarize, x: Buffer, stats: Buffer, b: Expr, t: Expr) -> None:
    """Mean and deviation of one row."""
    count = tirx.const(float(spec.rows.features), "float32")
    for at in range(2):
        put(stats, tirx.const(0.0, "float32"), at)
    with T.serial(0, spec.rows.features) as n:
        put(stats, stats[0] + x[b, t, n], 0)
    put(stats, stats[0] / count, 0)
    with T.serial(0, spec.rows.features) as n:
        centred = bind(x[b, t, n] - stats[0])
        put(stats, stats[1] + centred * centred, 1)
    put(stats, T.sqrt(stats[1] / count + tirx.const(spec.eps, "float32")), 1)
