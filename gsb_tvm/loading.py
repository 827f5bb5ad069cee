"""Loading an artefact for what it is made for: the CPU of this machine, or a GPU."""

from pathlib import Path

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime import session
from gsb_tvm.runtime.cuda.session import CudaModule, load_cuda
from gsb_tvm.runtime.metadata import read
from gsb_tvm.runtime.session import Module


def load(path: Path, threads: int = 1, gpu: int | None = None) -> Module | CudaModule:
    """Load an artefact.

    Parameters
    ----------
    threads
        That share a call's work on a CPU.
    gpu
        Number of the GPU; None for the first.

    Raises
    ------
    ArtefactError, UsageError
        As for :func:`gsb_tvm.load` and :func:`gsb_tvm.load_cuda`; or an argument is given that
        does not concern what the artefact is made for.
    """
    made_for = read(path).target
    if not made_for.gpu:
        if gpu is not None:
            raise UsageError(f"{path}: made for a CPU ({made_for.cpu}). Leave --gpu out.")
        return session.load(path, threads)
    if threads != 1:
        raise UsageError(f"{path}: made for a GPU ({made_for.gpu}). Leave --threads out.")
    return load_cuda(path, gpu or 0)
