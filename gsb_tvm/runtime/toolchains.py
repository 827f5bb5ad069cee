"""Finding compilers and linkers for a target, and running them.

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

from gsb_tvm.dialect.errors import OutputError
from gsb_tvm.targets.host import host
from gsb_tvm.targets.profile import Profile

TIMEOUT_S = 120
# The oldest glibc that ziglang links against: Debian 10, Ubuntu 18.10, Raspberry Pi OS 10.
_ZIG_GLIBC = "2.28"
_MESSAGE_LINES = 8
_NO_ROOM = ("No space left on device", "File too large", "File size limit exceeded")


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
    compiler
        The same for a C compiler with the headers of the target's C library; empty without them.
    archiver
        A program that makes static libraries; empty where the compiler knows one.
    """

    name: str
    command: tuple[str, ...]
    program: tuple[str, ...] = ()
    compiler: tuple[str, ...] = ()
    archiver: tuple[str, ...] = ()


def find(profile: Profile) -> list[Toolchain]:
    """All linkers for ``profile`` that are installed, best first."""
    triple = profile.mtriple
    found = _native() if host().arch == profile.arch else _cross(triple)
    for number in ("", *(f"-{n}" for n in range(25, 12, -1))):
        if path := shutil.which(f"ld.lld{number}"):
            found.append(Toolchain("ld.lld", (path,), ()))
            break
    if importlib.util.find_spec("ziglang") is not None:
        found.append(_zig(profile))
    return found


def _zig(profile: Profile) -> Toolchain:
    zig = (sys.executable, "-m", "ziglang")
    command = (*zig, "cc", "-target")
    glibc = (*command, f"{profile.arch}-linux-gnu.{_ZIG_GLIBC}")
    musl = (*command, f"{profile.arch}-linux-musl")
    compilers = {"gnu": glibc, "musl": musl}
    # It links glibc only dynamically, and has no headers of Android.
    compiler = compilers.get(c_library(profile.mtriple), ())
    return Toolchain("ziglang", glibc, musl, compiler, (*zig, "ar"))


def c_library(triple: str) -> str:
    """Which C library a triple, or what a compiler says of itself, means."""
    return next((name for name in ("musl", "android") if name in triple), "gnu")


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


def no_compiler(profile: Profile) -> str:
    """One sentence: nothing compiles C for ``profile``, and what to install."""
    return (
        f"no C compiler for {profile.mtriple} is installed. Install {profile.mtriple}-gcc, "
        "or ziglang (pip install ziglang)."
    )


def _native() -> list[Toolchain]:
    return _first_compiler("gcc", "g++", "clang", "cc")


def _cross(triple: str) -> list[Toolchain]:
    return _first_compiler(f"{triple}-gcc", f"{triple}-g++", f"{triple}-clang")


def _first_compiler(*names: str) -> list[Toolchain]:
    for name in names:
        if path := shutil.which(name):
            return [Toolchain(name, (path,), (path,), (path,))]
    return []


def run_tool(command: Sequence[str], folder: Path) -> str:
    """Run a tool in ``folder``; return "" or what it said, trimmed.

    Raises
    ------
    OutputError
        There is no room in ``folder``.
    """
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


def asked(command: Sequence[str]) -> str:
    """What a tool prints, trimmed; "" where it cannot be started or gives no end."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _trimmed(lines: Sequence[str]) -> str:
    left = len(lines) - _MESSAGE_LINES
    kept = [line[:200] for line in lines[:_MESSAGE_LINES]]
    return "\n".join([*kept, *([f"... and {left} lines more"] if left > 0 else [])])
