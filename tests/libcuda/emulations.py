"""Code that the stand-in for NVIDIA's driver runs, in folders that it looks into.

A file is called after the FNV-1a hash (64 bits) of a cubin, or of PTX without the zero behind it,
and emulates it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from unittest import mock

from gsb_tvm.runtime.cuda import code
from gsb_tvm.runtime.cuda.nvrtc import DeviceCode, compile_source
from tests.schedules.cuda.emulator import compile_library


@contextmanager
def emulating(kernels: Path, module: ModuleType = code) -> Iterator[None]:
    """While it lasts, what ``module`` compiles for a GPU is emulated too."""

    def compile_both(source: str, arch: str) -> DeviceCode:
        made = compile_source(source, arch)
        emulate(source, made, kernels)
        return made

    with mock.patch.object(module, "compile_source", compile_both):
        yield


def emulate(source: str, compiled: DeviceCode, kernels: Path) -> None:
    """Let the stand-in know what ``compiled`` does: what ``source`` says."""
    cubin, ptx = (kernels / f"{_hash(image)}.so" for image in (compiled.cubin, compiled.ptx))
    compile_library(source, cubin)
    ptx.unlink(missing_ok=True)
    ptx.symlink_to(cubin.name)


def _hash(image: bytes) -> str:
    value = 0xCBF29CE484222325
    for byte in image if image.startswith(b"\x7fELF") else image.rstrip(b"\0"):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"
