"""Elementwise float steps between an integer and its bit: found in the graph, run in NumPy.

Threshold folding evaluates the graph's own steps on every possible integer, so each operator here
does in float32 what the graph's operator does, step by step and in the graph's order.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.special import erf

from gsb_tvm.dialect.bits import Floats
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.rewriting import Expr, Graph, constant


def _erf(x: Floats) -> Floats:
    return erf(x.astype(np.float64)).astype(np.float32)


def _gelu(x: Floats) -> Floats:
    """x * 0.5 * (1 + erf(x / sqrt 2)) as ``relax.nn.gelu`` orders it."""
    half = _erf(x * np.float32(np.sqrt(0.5))) * np.float32(0.5)
    return x * (np.float32(0.5) + half)


def _clip(x: Floats, low: Any, high: Any) -> Floats:
    return np.clip(x, np.float32(low), np.float32(high))


STEPS: Mapping[str, Callable[..., Any]] = {
    "relax.add": np.add,
    "relax.subtract": np.subtract,
    "relax.multiply": np.multiply,
    "relax.divide": np.divide,
    "relax.maximum": np.maximum,
    "relax.minimum": np.minimum,
    "relax.negative": np.negative,
    "relax.abs": np.abs,
    "relax.erf": _erf,
    "relax.tanh": np.tanh,
    "relax.exp": np.exp,
    "relax.sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relax.sqrt": np.sqrt,
    "relax.round": np.rint,
    "relax.nn.relu": lambda x: np.maximum(x, np.float32(0)),
    "relax.nn.gelu": _gelu,
    "relax.clip": _clip,
}


def elementwise_source(expr: Expr, graph: Graph, *, stop: Callable[[Expr], bool]) -> Expr | None:
    """The one live tensor from which ``expr`` follows by steps with per-column constants, or None.

    ``stop(value)`` says which producers end the search. Every tensor on the way has the shape of
    ``expr``; constants are scalars or vectors along the last axis.
    """
    sources: list[Expr] = []
    seen: set[Any] = set()
    pending = [expr]
    shape = shape_of(expr)
    while pending:
        at = pending.pop()
        if at in seen:
            continue
        seen.add(at)
        value = graph.producer(at)
        if stop(value):
            sources.append(at)
            continue
        if value is None or shape_of(at) != shape or not any(is_call(value, n) for n in STEPS):
            return None
        for arg in _operands(value):
            array = constant(arg)
            if array is None:
                pending.append(arg)
            elif array.size not in (1, shape[-1]) or array.size != np.atleast_1d(array).shape[-1]:
                return None
    return sources[0] if len(sources) == 1 else None


def _operands(call: Expr) -> list[Expr]:
    return [call.args[0]] if is_call(call, "relax.clip") else list(call.args)


def evaluate(expr: Expr, source: Expr, values: Floats, graph: Graph) -> Floats:
    """Value of ``expr`` where ``source`` is ``values`` (count, columns), in float32."""
    cache: dict[Any, Floats] = {source: values}

    def run(at: Expr) -> Floats:
        array = constant(at)
        if array is not None:
            return array.reshape(-1) if array.size > 1 else array.reshape(())
        if at not in cache:
            call = graph.producer(at)
            args = [run(arg) for arg in _operands(call)]
            if is_call(call, "relax.clip"):
                args += [call.args[1].value, call.args[2].value]
            with np.errstate(all="ignore"):
                cache[at] = np.asarray(STEPS[call.op.name](*args), dtype=np.float32)
        return cache[at]

    return run(expr)
