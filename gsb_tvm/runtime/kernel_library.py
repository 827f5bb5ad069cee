"""One kernel as a file that is loaded here or on a board: for a CPU a library, for a GPU data."""

from pathlib import Path
from typing import Any

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.codegen import lowering
from gsb_tvm.runtime.cuda import kernel_file
from gsb_tvm.runtime.cuda.launches import Argument, lower
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.runtime.link import link_shared
from gsb_tvm.runtime.outfile import scratch_folder, write_scratch
from gsb_tvm.targets.profile import Profile

NAME = "main"
"""The function of the library: it takes the kernel's tensors in order."""

_LIBRARY = "kernel.so"
_DATA = "kernel.gpu"
_SCRATCH_BYTES = 8 << 20


def write_kernel(func: Any, profile: Profile, folder: Path) -> None:
    """Compile a PrimFunc for ``profile`` and write it to ``folder``, the only kernel there.

    Raises
    ------
    ToolchainError
        What compiles or links for the target is not installed, or failed.
    OutputError
        There is no room for it.
    """
    if profile.gpu is None:
        write_kernel_library(func, profile, folder / _LIBRARY)
    else:
        write_scratch(folder / _DATA, kernel_file.encode(gpu_kernel(func, profile)))


def kernel_in(folder: Path) -> Path:
    """The file that :func:`write_kernel` wrote to a folder."""
    (path,) = (folder / name for name in (_LIBRARY, _DATA) if (folder / name).exists())
    return path


def gpu_kernel(func: Any, profile: Profile) -> kernel_file.GpuKernel:
    """Compile a PrimFunc for the GPU of ``profile``.

    Raises
    ------
    ToolchainError
        NVIDIA's compiler is not installed, or does not know the GPU.
    """
    assert profile.gpu is not None
    lowered = lower({NAME: func}, profile)
    kernel = lowered.kernels[NAME]

    def place(argument: Argument) -> meta.Place:
        if argument.kind == "tensor":
            return meta.Place("input", argument.at)
        base = 0 if argument.kind == "scratch" else kernel.scratch_bytes
        return meta.Place("memory", base + argument.at)

    return kernel_file.GpuKernel(
        arch=profile.gpu.arch,
        code=compile_source(lowered.source, profile.gpu.arch).cubin,
        launches=tuple(
            meta.Launch(e.function, e.grid, e.block, tuple(map(place, e.arguments)), (0,))
            for e in kernel.launches
        ),
        scratch_bytes=kernel.scratch_bytes,
        state_bytes=kernel.state_bytes,
    )


def write_kernel_library(func: Any, profile: Profile, path: Path) -> None:
    """Compile a PrimFunc for ``profile`` and write the library to ``path``.

    Raises
    ------
    ToolchainError
        There is no linker for the target, or it failed.
    OutputError
        There is no room for it.
    """
    import tvm

    module = tvm.IRModule({NAME: func.with_attr("global_symbol", NAME)})
    with lowering():
        compiled = tvm.compile(module, target=profile.tvm_target())
    with scratch_folder(_SCRATCH_BYTES) as folder:
        unlinked = folder / "kernel.o"
        compiled.mod.write_to_file(str(unlinked), "o")
        write_scratch(path, link_shared(profile, [unlinked.read_bytes()], folder))
