"""Running compiled kernels for another CPU: as a static program, under qemu-user.

The program is a few lines of C around exactly the code and constants of the artefact, called as a
program with the C library calls them (:mod:`gsb_tvm.runtime.c_library`).
"""

import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ToolchainError, VerifyError
from gsb_tvm.runtime.build import Code
from gsb_tvm.runtime.c_library import constants, sources
from gsb_tvm.runtime.c_sources import fill, values
from gsb_tvm.runtime.link import link_program
from gsb_tvm.runtime.metadata import Metadata
from gsb_tvm.runtime.outfile import scratch_folder, write_scratch
from gsb_tvm.runtime.toolchains import asked
from gsb_tvm.targets import llvm
from gsb_tvm.targets.host import missing_here
from gsb_tvm.targets.profile import Profile

TIMEOUT_S = 600
_REFUSED = 3  # the program's own status for a call that failed, with a sentence


def command(profile: Profile) -> tuple[str, ...] | None:
    """The words to put before a program built for ``profile``.

    Empty where this machine executes it itself; None where no emulator for it is installed.
    """
    if not missing_here(profile):
        return ()
    qemu = shutil.which(f"qemu-{profile.arch}") or shutil.which(f"qemu-{profile.arch}-static")
    if qemu is None or profile.has_avx512:  # qemu has no 512-bit vectors
        return None
    # The CPU's own model traps what that CPU lacks; features added by -mattr need them all.
    added = profile.features - llvm.features(profile.arch, profile.mcpu)
    model = profile.mcpu if not added and profile.mcpu in _models(qemu) else "max"
    return (qemu, "-cpu", model)


def skip_reason(profile: Profile) -> str:
    """Why code for ``profile`` cannot be run here; empty when it can."""
    if command(profile) is not None:
        return ""
    if profile.has_avx512:
        lacks = ", ".join(missing_here(profile))
        return f"this CPU lacks {lacks}, and qemu-user has no 512-bit vectors"
    return f"qemu-user not found (Debian: apt install qemu-user; looked for qemu-{profile.arch})"


class Emulator:
    """A compiled model as a program; a context manager that removes its files at the end."""

    def __init__(self, code: Code, profile: Profile, metadata: Metadata) -> None:
        """Build the program.

        Raises
        ------
        ToolchainError
            There is no emulator or no C compiler for the target.
        """
        prefix = command(profile)
        if prefix is None:
            raise ToolchainError(f"cannot run code for {profile.name}: {skip_reason(profile)}.")
        self._command = prefix
        self._cpu = profile.mcpu
        self._outputs = metadata.program.outputs
        with ExitStack() as stack:
            room = 2 * (len(code.constants) + len(code.kernels))
            self._folder = stack.enter_context(scratch_folder(room))
            self._program = _build(code, profile, code.described(metadata), self._folder)
            self._files = stack.pop_all()

    def __enter__(self) -> "Emulator":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once on C-contiguous arrays in the order of the model's inputs.

        Raises
        ------
        VerifyError
            The program stopped: an instruction its CPU lacks, a bad access, no end.
        """
        sent, got = (self._folder / name for name in ("inputs", "outputs"))
        write_scratch(sent, b"".join(array.tobytes() for array in inputs))
        try:
            done = subprocess.run(
                [*self._command, str(self._program), str(sent), str(got)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as err:
            raise VerifyError(f"emulated {self._cpu}: no end within {TIMEOUT_S} s.") from err
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[:500]
            what = said if done.returncode == _REFUSED else f"{_stop(done.returncode)}. {said}"
            raise VerifyError(f"emulated {self._cpu}: {what}")
        return self._split(got.read_bytes())

    def _split(self, data: bytes) -> list[NDArray[Any]]:
        arrays, at = [], 0
        for spec in self._outputs:
            count = int(np.prod(spec.shape, dtype=np.int64))
            dtype = np.dtype(spec.dtype)
            array = np.frombuffer(data, dtype, count, at).reshape(spec.shape)
            arrays.append(array.copy())
            at += count * dtype.itemsize
        return arrays


def _build(code: Code, profile: Profile, metadata: Metadata, folder: Path) -> Path:
    parts = {file: text.encode() for file, text in sources(metadata, code.name).items()}
    parts["main.c"] = fill("emulate.c", values(metadata, code.name)).encode()
    parts |= {"weights.o": constants(code, profile), "kernels.o": code.kernels}
    for name, data in parts.items():
        write_scratch(folder / name, data)
    used = [f"{code.name}_run.c", "main.c", "weights.o", "kernels.o"]
    out = folder / "program"
    link_program(profile, [folder / name for name in used], out, folder)
    return out


def _stop(status: int) -> str:
    names = {
        signal.SIGILL: "the code holds an instruction that this CPU lacks",
        signal.SIGSEGV: "the code accessed memory that is not its own",
    }
    number = -status if status < 0 else status - 128  # qemu-user passes the signal on, or as 128+n
    return next((t for s, t in names.items() if s == number), f"the program ended with {status}")


@cache
def _models(qemu: str) -> frozenset[str]:
    """CPU models that this qemu knows."""
    return frozenset(asked([qemu, "-cpu", "help"]).split())
