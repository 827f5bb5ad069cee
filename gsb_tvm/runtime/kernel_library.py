"""One kernel as a shared library that TVM's runtime loads, here or on a board."""

from pathlib import Path
from typing import Any

from gsb_tvm.runtime.codegen import lowering
from gsb_tvm.runtime.link import link_shared
from gsb_tvm.runtime.outfile import scratch_folder, write_scratch
from gsb_tvm.targets.profile import Profile

NAME = "main"
"""The function of the library: it takes the kernel's tensors in order."""

_SCRATCH_BYTES = 8 << 20


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
