"""Apache TVM with the pipeline it comes with: fused, but hardly scheduled on CPUs."""

from pathlib import Path

import numpy as np

from comparison.jobs import Job, Run


def prepare(job: Job, _precision: str) -> list[Path]:
    """Import and compile with ``tvm.compile``."""
    import onnx
    import tvm
    from tvm.relax.frontend.onnx import from_onnx

    from gsb_tvm.targets import resolve

    profile = resolve(job.target)
    out = job.beside(f".tvm-{profile.mcpu}.so")
    if not out.exists():
        module = from_onnx(onnx.load(job.model))
        unfinished = out.with_name(f"part-{out.name}")  # the linker looks at the suffix
        tvm.compile(module, target=profile.tvm_target()).export_library(str(unfinished))
        unfinished.rename(out)
    return [out]


def load(job: Job, _precision: str) -> Run:
    """Virtual machine on the exported library; TVM_NUM_THREADS holds the threads."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(job.artefact), tvm.cpu())

    def run(images: np.ndarray) -> np.ndarray:
        result = machine["main"](tvm.runtime.tensor(images))
        return (result if hasattr(result, "numpy") else result[0]).numpy()

    return run
