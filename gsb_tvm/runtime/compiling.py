"""Compiling C for a target and collecting objects into a static library."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.outfile import write_scratch
from gsb_tvm.runtime.toolchains import Toolchain, asked, c_library, find, no_compiler, run_tool
from gsb_tvm.targets.profile import Profile

_OPTIONS = ("-std=c11", "-O2", "-fPIC", "-Wall", "-Wextra", "-Werror", "-g0")
# Atomic operations as calls of libgcc would be one more library to link.
_ARCH_OPTIONS = {"x86_64": (), "aarch64": ("-mno-outline-atomics",)}


def static_library(
    profile: Profile, sources: Mapping[str, str], kernels: bytes, constants: bytes, folder: Path
) -> bytes:
    """Compile C sources and collect them and two objects into an archive.

    Equal arguments give equal bytes with the same tools. ``sources`` maps file names to contents,
    headers too; ``folder`` is for temporary files.

    Raises
    ------
    ToolchainError
        No C compiler with the target's headers is installed, or each one failed.
    OutputError
        There is no room in ``folder``.
    """
    tools = [tool for tool in find(profile) if tool.compiler and _has_headers(tool, profile)]
    if not tools:
        raise ToolchainError(no_compiler(profile))
    for name, text in sources.items():
        write_scratch(folder / name, text.encode())
    write_scratch(folder / "generated.o", kernels)
    write_scratch(folder / "weights.o", constants)
    failures = []
    for tool in tools:
        error = _build(tool, profile, [n for n in sources if n.endswith(".c")], folder)
        if not error:
            return (folder / "library.a").read_bytes()
        failures.append(f"{tool.name}: {error}")
    raise ToolchainError(f"compiling for {profile.mtriple} failed. " + "\n".join(failures))


def _has_headers(tool: Toolchain, profile: Profile) -> bool:
    """Whether a compiler's headers are of the target's C library: its locks have other sizes."""
    if tool.archiver:  # found by the target's name
        return True
    return c_library(asked([*tool.compiler, "-dumpmachine"])) == c_library(profile.mtriple)


def _archiver(tool: Toolchain) -> tuple[str, ...]:
    return tool.archiver or (asked([*tool.compiler, "-print-prog-name=ar"]) or "ar",)


def _build(tool: Toolchain, profile: Profile, sources: Sequence[str], folder: Path) -> str:
    """Make ``library.a`` in ``folder``; return "" or what a tool said."""
    options = (*_OPTIONS, *_ARCH_OPTIONS[profile.arch], f"-I{CPP / 'include'}")
    compiled = [f"{name}.o" for name in sources]
    for source, out in zip(sources, compiled, strict=True):
        # By relative names: no path of this machine gets into the object.
        if error := run_tool([*tool.compiler, *options, "-c", source, "-o", out], folder):
            return error
    # LLVM describes the kernels to debuggers, who learn nothing from it, in 300 kB.
    strip = [*tool.compiler, "-r", "-nostdlib", "-Wl,--strip-debug", "-o", "kernels.o"]
    if error := run_tool([*strip, "generated.o"], folder):
        return error
    (folder / "library.a").unlink(missing_ok=True)
    members = [*compiled, "kernels.o", "weights.o"]
    return run_tool([*_archiver(tool), "rcsD", "library.a", *members], folder)
