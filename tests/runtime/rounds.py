"""A model of many rounds, whose kernel has two phases and scratch of both kinds."""

from pathlib import Path

import numpy as np
from tvm import relax
from tvm.script.ir_builder import tirx as T

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import build
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.targets.profile import Profile

SIZE = 1000
ROUNDS = 20


def turned(x: v.Buffer, y: v.Buffer) -> None:
    """y = x backwards, plus 1, through scratch of all parts and scratch of each."""
    shared = v.workspace((SIZE,), "float32")
    with phase() as share:
        own = v.workspace((SIZE,), "float32")
        first, end = share.span(SIZE)
        with T.serial(first, end) as i:
            v.put(own, x[i] + T.float32(1), i)
        with T.serial(first, end) as i:
            v.put(shared, own[i], i)
    with phase() as share:
        first, end = share.span(SIZE)
        with T.serial(first, end) as i:
            v.put(y, shared[SIZE - 1 - i], i)


def module_of_rounds() -> relax.Function:
    """``turned`` many times, and between them an operator of which only TVM knows a kernel."""
    tensors = [("x", (SIZE,), "float32"), ("y", (SIZE,), "float32")]
    x = relax.Var("x", relax.TensorType((SIZE,), "float32"))
    builder = relax.BlockBuilder()
    kernel = v.prim_func(tensors, turned).without_attr("global_symbol")
    with builder.function("main", [x]):
        with builder.dataflow():
            call, y = builder.add_func(kernel, "turned"), x
            for _ in range(ROUNDS):
                y = builder.emit(relax.call_tir(call, [y], x.ty))
                y = builder.emit(relax.op.abs(y))
            y = builder.emit_output(y)
        builder.emit_func_output(y)
    return builder.get()


def x_and_y() -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(SIZE, dtype=np.float32)
    return x, x + ROUNDS  # turned an even number of times


def written(native: Profile, folder: Path) -> Path:
    """The artefact in ``folder``."""
    tensor = meta.Tensor("x", (SIZE,), "float32")
    metadata = meta.Metadata(
        versions=meta.versions(),
        target=meta.target_of(native),
        model=meta.Model("rounds", ""),
        programs=(meta.Program(inputs=(tensor,), outputs=(tensor,)),),
    )
    out = folder / "rounds.so"
    return build(module_of_rounds(), native, out, metadata).path
