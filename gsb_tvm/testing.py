"""For tests of passes, ours and those of users who add one."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.ir import IRModule, Op
from tvm.ir.transform import Pass
from tvm.target import Target
from tvm_ffi import structural_equal

Array = npt.NDArray[Any]


def module_of(
    inputs: Mapping[str, tuple[int, ...]], build: Callable[..., Any], dtype: str = "float32"
) -> IRModule:
    """Module with one dataflow function ``main``.

    Parameters
    ----------
    inputs
        Shape of each parameter.
    build
        Called with ``emit`` (binds an expression to a variable) and the parameters; returns the
        result.
    """
    builder = relax.BlockBuilder()
    params = [relax.Var(name, relax.TensorType(shape, dtype)) for name, shape in inputs.items()]
    with builder.function("main", params):
        with builder.dataflow():
            result = builder.emit_output(build(builder.emit, *params))
        builder.emit_func_output(result)
    return builder.get()


def run_module(module: IRModule, *inputs: Array) -> list[Array]:
    """Outputs of ``main`` on TVM's virtual machine; packed operators run on the NumPy oracle.

    Compiled for compile time, not for speed.
    """
    with tvm.transform.PassContext(opt_level=0):
        executable = tvm.compile(module, target=Target({"kind": "llvm", "opt-level": 0}))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    outputs = machine["main"](*[tvm.runtime.tensor(array) for array in inputs])
    return [out.numpy() for out in ([outputs] if hasattr(outputs, "numpy") else outputs)]


def operators(module: IRModule) -> Counter[str]:
    """How often each operator occurs in ``main``."""
    counted: Counter[str] = Counter()
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            value = binding.value
            if isinstance(value, relax.Call) and isinstance(value.op, Op):
                counted[value.op.name] += 1
    return counted


def assert_rewrites(
    rewrite: Pass,
    before: IRModule,
    expected: IRModule | None = None,
    *,
    inputs: Sequence[Array] = (),
    tolerance: float = 0.0,
) -> IRModule:
    """Check everything a pass must keep; returns the rewritten module, dead code removed.

    The input module is untouched; the result is well formed, structurally ``expected`` where that
    is given, and a fixed point; on ``inputs`` both modules give the same numbers within
    ``tolerance`` (relative to the largest; 0 means bit for bit).
    """
    original = before.script()
    clean = relax.transform.DeadCodeElimination()
    after = clean(rewrite(before))
    assert before.script() == original, "the pass changed its input"
    relax.analysis.well_formed(after)
    assert structural_equal(clean(rewrite(after)), after), "a second run changes the module again"
    if expected is not None:
        assert structural_equal(after, clean(expected), map_free_vars=True), after.script()
    if inputs:
        for old, new in zip(run_module(before, *inputs), run_module(after, *inputs), strict=True):
            scale = np.abs(old).max() if old.size else 0
            np.testing.assert_allclose(new, old, rtol=0, atol=tolerance * scale)
    return after


def assert_leaves_alone(rewrite: Pass, module: IRModule) -> None:
    """Check that a pass returns the module as it is."""
    assert structural_equal(rewrite(module), module, map_free_vars=True)
