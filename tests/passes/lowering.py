"""Modules whose operators are kernels, on this machine's baseline target."""

import numpy as np
import tvm
from tvm import relax, tirx

from gsb_tvm.targets import resolve

PROFILE = resolve("llvm -mtriple=x86_64-linux-gnu")


def legalized(module):
    """Float operators as fused loop nests, as the pipeline has them before they are scheduled."""
    for one in (
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ):
        module = one(module)
    return module


def kernels(module):
    """PrimFuncs by name."""
    items = module.functions_items()
    return {var.name_hint: func for var, func in items if isinstance(func, tirx.PrimFunc)}


def run_compiled(module, *inputs):
    """First output of ``main``."""
    machine = relax.VirtualMachine(tvm.compile(module, PROFILE.tvm_target()), tvm.cpu())
    result = machine["main"](*[tvm.runtime.tensor(np.ascontiguousarray(x)) for x in inputs])
    return (result if hasattr(result, "numpy") else result[0]).numpy()
