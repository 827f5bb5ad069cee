"""A compiled model as a static library with headers, for programs without Python.

::

    include/<name>.h, <name>.hpp      lib/lib<name>.a
    lib/cmake/<name>/                 lib/pkgconfig/<name>.pc
    example/                          README.md, gsb-tvm.json

The library holds the functions of :mod:`gsb_tvm.runtime.entry`, the constants, and two C sources
of ours compiled for the target: one runs a call in the caller's memory, the other owns memory and
threads. All its symbols begin with its name, so several fit into one program.
"""

from dataclasses import dataclass
from pathlib import Path

from gsb_tvm.runtime.build import Code
from gsb_tvm.runtime.c_sources import fill, values
from gsb_tvm.runtime.compiling import static_library
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.metadata import Metadata
from gsb_tvm.runtime.outfile import scratch_folder, write_folder
from gsb_tvm.targets.profile import Profile

MARKER = "gsb-tvm.json"
"""File with the metadata, by which a folder is known as one of these."""

_SCRATCH_BYTES = 8 << 20


@dataclass(frozen=True)
class CLibrary:
    """A library ready to be written: its files by their paths in the folder."""

    code: Code
    metadata: Metadata
    files: dict[str, bytes]

    @property
    def size_bytes(self) -> int:
        """Size of the archive."""
        return len(self.files[f"lib/lib{self.code.name}.a"])

    def write(self, folder: Path) -> None:
        """Write the folder, whole or not at all.

        Raises
        ------
        OutputError
            It cannot be written there.
        """
        write_folder(folder, self.files, MARKER)


def sources(metadata: Metadata, name: str) -> dict[str, str]:
    """C sources of a library by file name, its header among them.

    Raises
    ------
    UsageError
        A tensor cannot be a parameter in C, or a call needs too much memory.
    """
    filled = values(metadata, name)
    names = {"model.h": f"{name}.h", "internal.h": f"{name}_internal.h"}
    names |= {"run.c": f"{name}_run.c", "context.c": f"{name}_context.c"}
    return {file: fill(template, filled) for template, file in names.items()}


def constants(code: Code, profile: Profile) -> bytes:
    """Relocatable object with the constants of generated code."""
    blob = Blob(".rodata", f"{code.name}_weights", code.constants.data())
    return data_object(profile.arch, [blob])


def c_library(code: Code, profile: Profile, metadata: Metadata) -> CLibrary:
    """Make a static library of ``code``, which gives it its name.

    Raises
    ------
    ToolchainError
        No C compiler for the target is installed, or each one failed.
    UsageError
        A tensor cannot be a parameter in C, or a call needs too much memory.
    """
    name = code.name
    filled = values(metadata, name)
    weights = constants(code, profile)
    with scratch_folder(_SCRATCH_BYTES + 2 * (len(code.kernels) + len(weights))) as folder:
        parts = sources(metadata, name)
        archive = static_library(profile, parts, code.kernels, weights, folder)
    texts = {
        f"include/{name}.h": "model.h",
        f"include/{name}.hpp": "model.hpp",
        f"lib/cmake/{name}/{name}-config.cmake": "config.cmake",
        f"lib/cmake/{name}/{name}-config-version.cmake": "version.cmake",
        f"lib/pkgconfig/{name}.pc": "model.pc",
        "example/CMakeLists.txt": "example/CMakeLists.txt",
        "example/main.c": "example/main.c",
        "README.md": "README.md",
    }
    files = {path: fill(template, filled).encode() for path, template in texts.items()}
    files |= {f"lib/lib{name}.a": archive, MARKER: metadata.json()}
    return CLibrary(code, metadata, files)
