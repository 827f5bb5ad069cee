"""The compiler of this repository: compiled once, then loaded from the artefact as a user would."""

from pathlib import Path

import numpy as np

import gsb_tvm
from comparison.jobs import Job, Run, Verified
from gsb_tvm.targets import resolve


def prepare(job: Job, _precision: str) -> list[Path]:
    """Compile, always: the compiler may have changed since the last time."""
    from gsb_tvm.driver import Options, compile_model

    profile = resolve(job.target)
    out = job.beside(".gsb.so")
    compile_model(job.model, profile, Options(out, batch=job.batch, verify=False))
    return [out]


def load(job: Job, _precision: str) -> Run:
    """Load the artefact; the calling thread is one of its threads."""
    module = gsb_tvm.load(job.artefact, threads=job.threads)

    def run(images: np.ndarray) -> np.ndarray:
        result = module(images)
        return next(iter(result.values())) if isinstance(result, dict) else result

    return run


def verify(job: Job) -> Verified:
    """Compare with ONNX Runtime on the folded model, by the rule of gsb_tvm.runtime.verify."""
    from gsb_tvm.verification import compare, reference_of

    module = gsb_tvm.load(job.artefact, threads=job.threads)
    found = compare(module.run, reference_of(job.model, job.batch), module.metadata.program.inputs)
    return Verified(
        found.verdict, found.exact, found.count("tie"), len(found.samples), found.reason
    )
