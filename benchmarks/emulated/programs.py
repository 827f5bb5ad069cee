"""Programs around one network for one CPU."""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ToolchainError, UsageError, VerifyError
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.emulate import command, skip_reason
from gsb_tvm.targets import Profile

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From the bytes of one call's input to the numbers of its output."""

_NAME = "network"
_TRIPLE = "aarch64-linux-gnu"
_SYSROOT = f"/usr/{_TRIPLE}"
_TOOLCHAIN = Path(__file__).parents[2] / "examples/raspberry-pi/aarch64-linux-gnu.cmake"
_TIMEOUT_S = 1200


def emulator(profile: Profile) -> Sequence[str]:
    """Words to put before a program.

    Raises
    ------
    UsageError
        The CPU is none of 64-bit Arm.
    ToolchainError
        There is no emulator.
    """
    if profile.arch != "aarch64":
        raise UsageError(f"--cpu: {profile.mcpu} is {profile.arch}, expected a CPU of 64-bit Arm.")
    prefix = command(profile)
    if prefix is None:
        raise ToolchainError(f"{profile.name}: {skip_reason(profile)}.")
    return prefix


def programs(model: Path, profile: Profile, folder: Path) -> Iterator[tuple[str, Run]]:
    """Compile and build; each program with the name of its kind.

    Raises
    ------
    ToolchainError
        The emulator, CMake or the cross compiler is missing.
    VerifyError
        A program ended with an error, or not at all.
    """
    prefix = emulator(profile)
    emulated = (*prefix, "-L", _SYSROOT)
    folder.mkdir()
    library, shared = folder / "library", folder / "network.so"
    compile_model(model, profile, Options(library, verify=False, c_library=_NAME))
    yield "library", _library(library, folder, prefix)
    example = _cmake(library / "example", folder / "example") / f"{_NAME}_example"
    yield "example, 2 threads", _example(example, folder, emulated)
    compile_model(model, profile, Options(shared, verify=False))
    source = Path(__file__).parent / "session"
    session = _cmake(source, folder / "session", f"-Dgsb_tvm_DIR={CPP / 'cmake'}") / "session"
    for threads in (1, 2):
        called = (*emulated, session, shared, threads)
        yield f"session, {threads} thread{'s' * (threads > 1)}", _session(called, folder)


def _library(library: Path, folder: Path, prefix: Sequence[str]) -> Run:
    """The C library alone, in a static program."""
    program = folder / "static"
    flags = ("-std=c11", "-O2", "-static", f"-I{library / 'include'}")
    sources = (Path(__file__).parent / "library.c", library / f"lib/lib{_NAME}.a")
    _done(f"{_TRIPLE}-gcc", *flags, *sources, "-lm", "-o", program)
    return _session((*prefix, program), folder)


def _example(program: Path, folder: Path, emulated: Sequence[object]) -> Run:
    """The emitted example, which prints a number a line."""

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        image.tofile(folder / "image")
        printed = _done(*emulated, program, "--threads", 2, folder / "image")
        return np.array(printed.split(), np.float32)

    return run


def _session(called: Sequence[object], folder: Path) -> Run:
    """A program that reads one file and writes another."""

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        image.tofile(folder / "image")
        _done(*called, folder / "image", folder / "output")
        return np.fromfile(folder / "output", np.float32)

    return run


def _cmake(source: Path, build: Path, *definitions: str) -> Path:
    """Configure and build for the target."""
    _done("cmake", "-S", source, "-B", build, f"-DCMAKE_TOOLCHAIN_FILE={_TOOLCHAIN}", *definitions)
    _done("cmake", "--build", build)
    return build


def _done(*words: object) -> str:
    """What a command prints."""
    called = [str(word) for word in words]
    if shutil.which(called[0]) is None:
        raise ToolchainError(
            f"{called[0]} is not installed "
            "(Debian: apt install cmake g++-aarch64-linux-gnu qemu-user)."
        )
    try:
        done = subprocess.run(
            called, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise VerifyError(f"{' '.join(called)}: no end within {_TIMEOUT_S} s.") from err
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise VerifyError(f"{' '.join(called)}: ended with {done.returncode}. {said}")
    return done.stdout
