"""What Python users call to compile a model and use it at once."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.driver import compile_model
from gsb_tvm.options import Options
from gsb_tvm.runtime import session
from gsb_tvm.runtime.outfile import scratch_folder
from gsb_tvm.runtime.session import Module
from gsb_tvm.runtime.workers import check_threads
from gsb_tvm.targets import missing_here, resolve


def build(
    model: str | os.PathLike[str] | Any,
    target: str | Mapping[str, object] | Sequence[str] = "native",
    *,
    batch: int | Sequence[int] | None = None,
    verify: bool = False,
    strict: bool = False,
    threads: int = 1,
) -> Module:
    """Compile a model and load the result.

    Parameters
    ----------
    model
        Path of an ONNX file, or an ``onnx.ModelProto`` without external data.
    target
        As on the command line: "native", "llvm -mcpu=haswell", a tag, JSON or a mapping. It must be
        one that this machine executes.
    batch
        Size of an open batch axis; None means 1. With several, such as ``(1, 2, 4)``, a call of 5
        is one of 4 and one of 1.
    verify
        Compare with ONNX Runtime before returning.
    strict
        Raise where a binary operator is left in float.
    threads
        Threads that share the work of each call.

    Returns
    -------
    Module
        Call it with the inputs; ``report`` holds a row for each matmul-like operator, ``save``
        writes the artefact.

    Raises
    ------
    gsb_tvm.dialect.errors.GsbError
        One sentence about what does not fit; its subclass says of what kind it is.
    """
    check_threads(threads)
    profile = resolve(target)
    if profile.gpu is not None:
        raise UsageError(
            f"{profile.name}: a GPU, and build is for this machine's CPU. Write an artefact with "
            "gsb-tvm compile, and load it with gsb_tvm.load_cuda."
        )
    if lacks := missing_here(profile):
        raise UsageError(
            f"{profile.name}: this machine lacks {', '.join(lacks)}, so the result cannot be "
            "loaded here. Write an artefact with gsb-tvm compile instead."
        )
    with scratch_folder() as folder:
        out = folder / "model.so"
        compile_model(model, profile, Options(out, batch=batch, verify=verify, strict=strict))
        return session.load(out, threads)
