"""Linking with whichever toolchain is installed (:mod:`gsb_tvm.runtime.toolchains`)."""

from collections.abc import Sequence
from pathlib import Path

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.elf import data_object
from gsb_tvm.runtime.outfile import write_scratch
from gsb_tvm.runtime.toolchains import Toolchain, find, missing, no_compiler, run_tool
from gsb_tvm.targets.profile import Profile

# build-id would be taken over the temporary file names of some linkers.
_SHARED = (
    "-shared",
    "-nostartfiles",
    "-Wl,--build-id=none",
    "-Wl,--strip-all",
    "-Wl,-z,noexecstack",
    # Some compilers bind all symbols at load, before the runtime that has them need be there.
    "-Wl,-z,lazy",
)
# Code and constants share pages instead of each padding its own; lld does so unasked, zig refuses.
_SHARE_PAGES = "-Wl,-z,noseparate-code"


def link_shared(profile: Profile, objects: Sequence[bytes], folder: Path) -> bytes:
    """Link relocatable objects into a shared library and return it.

    The library needs the C library and libm and nothing else; where the linker does not know them
    they are left open and bound when it is loaded. ``folder`` is for temporary files.

    Raises
    ------
    ToolchainError
        No linker is installed, or each one failed.
    OutputError
        There is no room in ``folder``.
    """
    tools = find(profile)
    if not tools:
        raise ToolchainError(missing(profile))
    files = []
    for number, data in enumerate(objects):
        files.append(folder / f"part{number}.o")
        write_scratch(files[-1], data)
    failures = []
    for tool in tools:
        out = folder / "linked.so"
        error = run_tool(_shared_command(profile, tool, files, out), folder)
        if not error:
            return out.read_bytes()
        failures.append(f"{tool.name}: {error}")
    raise ToolchainError(f"linking for {profile.mtriple} failed. " + "\n".join(failures))


def link_program(profile: Profile, files: Sequence[Path], out: Path, folder: Path) -> None:
    """Compile and link C sources and objects into a static program for the target's Linux.

    Raises
    ------
    ToolchainError
        No C compiler for the target is installed, or each one failed.
    OutputError
        There is no room in ``folder``.
    """
    tools = [tool for tool in find(profile) if tool.program]
    if not tools:
        raise ToolchainError(no_compiler(profile))
    failures = []
    for tool in tools:
        options = ["-std=c11", "-O1", f"-I{CPP / 'include'}", "-static", "-Wl,--build-id=none"]
        command = [*tool.program, *options, "-o", str(out), *map(str, files), "-lm"]
        error = run_tool(command, folder)
        if not error:
            return
        failures.append(f"{tool.name}: {error}")
    raise ToolchainError(f"building for {profile.mtriple} failed. " + "\n".join(failures))


def _shared_command(
    profile: Profile, tool: Toolchain, files: Sequence[Path], out: Path
) -> list[str]:
    parts = [*map(str, files)]
    if tool.program:
        pages = () if tool.name == "ziglang" else (_SHARE_PAGES,)
        return [*tool.command, *_SHARED, *pages, "-o", str(out), *parts, "-lm"]
    stubs = [str(_stub(profile, tool, name, out.parent)) for name in ("libm.so.6", "libc.so.6")]
    options = ["-shared", "--build-id=none", "--strip-all", "-z", "noexecstack", "-z", "lazy"]
    return [*tool.command, *options, "-o", str(out), *parts, *stubs]


def _stub(profile: Profile, tool: Toolchain, name: str, folder: Path) -> Path:
    """Make an empty library called ``name``, so that the result asks for the real one by name."""
    empty, out = folder / "empty.o", folder / name
    write_scratch(empty, data_object(profile.arch, []))
    command = [*tool.command, "-shared", "-soname", name, "-o", str(out), str(empty)]
    if error := run_tool(command, folder):
        raise ToolchainError(f"{tool.name}: {error}")
    return out
