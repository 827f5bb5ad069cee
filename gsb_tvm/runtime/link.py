"""Finding a linker for a target and linking with it.

In order of preference: the host's compiler or ``<triple>-gcc``; then LLVM's ``ld.lld`` alone, which
needs no system libraries of the target; then ziglang from PyPI, which brings them.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gsb_tvm.dialect.errors import OutputError, ToolchainError
from gsb_tvm.runtime.elf import data_object
from gsb_tvm.runtime.outfile import write_scratch
from gsb_tvm.targets.host import host
from gsb_tvm.targets.profile import Profile

TIMEOUT_S = 120
# The oldest glibc that ziglang links against: Debian 10, Ubuntu 18.10, Raspberry Pi OS 10.
_ZIG_GLIBC = "2.28"
_MESSAGE_LINES = 8
_NO_ROOM = ("No space left on device", "File too large", "File size limit exceeded")
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


@dataclass(frozen=True)
class Toolchain:
    """A linker for one target.

    Attributes
    ----------
    name
        For people: "gcc", "ld.lld", "ziglang".
    command
        The program and the options that choose the target.
    program
        The same for a C compiler that makes static programs; empty where it cannot.
    """

    name: str
    command: tuple[str, ...]
    program: tuple[str, ...]

    @classmethod
    def compiler(cls, name: str, path: str) -> "Toolchain":
        """Make one from a C compiler that knows its target and has its C library."""
        return cls(name, (path,), (path,))


def find(profile: Profile) -> list[Toolchain]:
    """All linkers for ``profile`` that are installed, best first."""
    triple = profile.mtriple
    found = _native() if host().arch == profile.arch else _cross(triple)
    for number in ("", *(f"-{n}" for n in range(25, 12, -1))):
        if path := shutil.which(f"ld.lld{number}"):
            found.append(Toolchain("ld.lld", (path,), ()))
            break
    if importlib.util.find_spec("ziglang") is not None:
        command = (sys.executable, "-m", "ziglang", "cc", "-target")
        linux = f"{profile.arch}-linux"
        found.append(
            Toolchain(
                "ziglang",
                (*command, f"{linux}-gnu.{_ZIG_GLIBC}"),
                (*command, f"{linux}-musl"),  # zig links glibc only dynamically
            )
        )
    return found


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
        error = _run(_shared_command(profile, tool, files, out), folder)
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
        raise ToolchainError(
            f"no C compiler for {profile.mtriple} is installed. Install {profile.mtriple}-gcc, "
            "or ziglang (pip install ziglang)."
        )
    failures = []
    for tool in tools:
        options = ["-std=c11", "-O1", "-static", "-Wl,--build-id=none"]
        command = [*tool.program, *options, "-o", str(out), *map(str, files), "-lm"]
        error = _run(command, folder)
        if not error:
            return
        failures.append(f"{tool.name}: {error}")
    raise ToolchainError(f"building for {profile.mtriple} failed. " + "\n".join(failures))


def missing(profile: Profile) -> str:
    """One sentence: nothing can link for ``profile``, and what to install."""
    if host().arch == profile.arch:
        return (
            "no linker is installed. Install gcc (Debian: apt install gcc), clang, or "
            "pip install ziglang."
        )
    triple = profile.mtriple
    return (
        f"no linker for {triple} is installed. Install one of: {triple}-gcc (Debian: apt install "
        f"gcc-{triple.replace('_', '-')}), lld (apt install lld), or ziglang (pip install ziglang)."
    )


def _native() -> list[Toolchain]:
    return _first_compiler("gcc", "g++", "clang", "cc")


def _cross(triple: str) -> list[Toolchain]:
    return _first_compiler(f"{triple}-gcc", f"{triple}-g++", f"{triple}-clang")


def _first_compiler(*names: str) -> list[Toolchain]:
    for name in names:
        if path := shutil.which(name):
            return [Toolchain.compiler(name, path)]
    return []


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
    if error := _run(command, folder):
        raise ToolchainError(f"{tool.name}: {error}")
    return out


def _run(command: Sequence[str], folder: Path) -> str:
    """Run a tool; return "" or what it said, trimmed."""
    environment = {**os.environ, "LC_ALL": "C", "ZIG_LOCAL_CACHE_DIR": str(folder)}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"gave no result within {TIMEOUT_S} s"
    except OSError as err:
        return f"cannot be started ({err.strerror})"
    if done.returncode == 0:
        return ""
    said = (done.stderr or done.stdout).decode("utf-8", "replace")
    if done.returncode == -signal.SIGXFSZ or any(text in said for text in _NO_ROOM):
        raise OutputError(f"{folder}: no room for temporary files. Make room or set TMPDIR.")
    lines = [line.replace(f"{folder}/", "") for line in said.splitlines() if line.strip()]
    return _trimmed(lines) or f"exit status {done.returncode}"


def _trimmed(lines: Sequence[str]) -> str:
    left = len(lines) - _MESSAGE_LINES
    kept = [line[:200] for line in lines[:_MESSAGE_LINES]]
    return "\n".join([*kept, *([f"... and {left} lines more"] if left > 0 else [])])
