"""PrimFuncs as TVM's legalisation and fusion write them, and their numbers."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import tvm
from tvm import relax

from gsb_tvm.targets.profile import Profile
from tests.schedules import levels
from tests.schedules.levels import profile_of

Array = np.ndarray
Graph = Callable[..., Any]
Functions = Callable[[], list[Any]]


def fused(graph: Graph, *shapes: Sequence[int]) -> Any:
    """A small Relax function after legalisation and fusion."""
    builder = relax.BlockBuilder()
    arguments = [relax.Var(f"x{i}", relax.TensorType(s, "float32")) for i, s in enumerate(shapes)]
    with builder.function("main", arguments):
        with builder.dataflow():
            out = builder.emit_output(builder.normalize(graph(*arguments)))
        builder.emit_func_output(out)
    passes = [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
    ]
    return tvm.transform.Sequential(passes)(builder.get())


def lowered(graph: Graph, *shapes: Sequence[int]) -> list[Any]:
    """PrimFuncs of such a function."""
    module = fused(graph, *shapes)
    return [f for f in module.functions.values() if isinstance(f, tvm.tirx.PrimFunc)]


def ones(*shape: int) -> Any:
    """A constant of small integers."""
    return relax.const(np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 5 - 2)


def compiled(func: Any, profile: Profile) -> Any:
    """Library of one function, ``main``."""
    return levels.compiled(func, profile)


def call(library: Any, func: Any, inputs: Sequence[Array]) -> Array:
    """Output of ``func``, which ``library`` holds compiled."""
    out = func.params[-1]
    result = tvm.runtime.tensor(np.full([int(n) for n in out.shape], 7, out.dtype))
    library["main"](*map(tvm.runtime.tensor, inputs), result)
    return result.numpy()


def inputs(func: Any, seed: int, *, exact: bool) -> list[Array]:
    """Small integers, whose products and sums are exact in float32; or normal numbers."""
    rng = np.random.default_rng(seed)
    shapes = [([int(n) for n in param.shape], param.dtype) for param in func.params[:-1]]
    if exact:
        return [rng.integers(-4, 5, shape).astype(dtype) for shape, dtype in shapes]
    return [rng.standard_normal(shape).astype(dtype) for shape, dtype in shapes]


@cache
def unscheduled(functions: Functions, number: int, exact: bool) -> Array:
    """Output of one of ``functions`` as TVM compiles it by itself, for ``inputs`` of seed 3."""
    func = functions()[number]
    return call(compiled(func, profile_of("llvm -mcpu=x86-64")), func, inputs(func, 3, exact=exact))
