"""Running a program for 64-bit Arm under qemu-user with a plugin of ours that counts instructions.

The plugin, ``counter.c``, is compiled where it is used, by the host's C compiler.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gsb_tvm.dialect.errors import ToolchainError, VerifyError

_SOURCE = Path(__file__).with_name("counter.c")
_EMULATOR = "qemu-aarch64"
_NEWEST = 8  # of QEMU: version 9 took functions out of its interface for plugins
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Block:
    """Straight code of instructions of 4 bytes, and how often it ran."""

    address: int
    instructions: int
    executions: int


@dataclass(frozen=True)
class Section:
    """What ran between two marks of a program.

    Attributes
    ----------
    instructions
        Executed in all.
    ticks
        Instructions executed before each reading of the clock.
    spans
        Code that ran before the first tick, between two of them, and after the last.
    """

    instructions: int
    ticks: tuple[int, ...]
    spans: tuple[tuple[Block, ...], ...]


def built(folder: Path) -> Path:
    """Compile the plugin into ``folder`` and return its path.

    Raises
    ------
    ToolchainError
        There is no C compiler for this machine, or it failed.
    """
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise ToolchainError("no C compiler is installed, which builds the counter. Install gcc.")
    out = folder / "libcounter.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(out), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolchainError(f"{_SOURCE.name} cannot be compiled: {done.stderr.strip()[:500]}")
    return out


def emulator() -> str:
    """Path of a QEMU that takes the plugin.

    Raises
    ------
    ToolchainError
        None is installed, or it was built without plugins, or takes others.
    """
    path = shutil.which(_EMULATOR)
    if path is None:
        raise ToolchainError(
            f"{_EMULATOR} is not installed, which counts. Install it (Debian: apt install "
            "qemu-user)."
        )
    if "-plugin" not in _said(path, "--help"):
        raise ToolchainError(
            f"{path} was built without plugins, expected -plugin among its options. Install "
            "Debian's qemu-user, or build QEMU with --enable-plugins."
        )
    version = re.search(r"version (\d+)", _said(path, "--version"))
    if version and int(version.group(1)) > _NEWEST:
        raise ToolchainError(
            f"{path} is QEMU {version.group(1)}, whose plugins have another interface, expected "
            f"4.2 to {_NEWEST}.2. Put an older one, as Debian 12 has it, before it in PATH."
        )
    return path


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def count(cpu: str, command: Sequence[str], folder: Path, *options: str) -> list[Section]:
    """Sections of a program in the order of execution; ``options`` are QEMU's.

    Raises
    ------
    ToolchainError
        Something is missing, see :func:`emulator` and :func:`built`.
    VerifyError
        The program failed or started threads, whose counts would mix.
    """
    out = folder / "counts.txt"
    plugin = ("-plugin", f"{built(folder)},out={out}")
    done = subprocess.run(
        [emulator(), "-cpu", cpu, *options, *plugin, *command],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[:500]
        raise VerifyError(f"emulated {cpu}: the program ended with {done.returncode}. {said}")
    return sections(out.read_text(encoding="ascii"))


def sections(text: str) -> list[Section]:
    """Read what the plugin wrote.

    Raises
    ------
    VerifyError
        There were several threads.
    """
    found: list[Section] = []
    ticks: list[int] = []
    spans: list[list[Block]] = [[]]
    for line in text.splitlines():
        word, *numbers = line.split()
        values = [int(number, 0) for number in numbers]
        match word:
            case "block":
                spans[-1].append(Block(*values))
            case "tick":
                ticks += values
                spans.append([])
            case "section":
                found.append(Section(values[0], tuple(ticks), tuple(map(tuple, spans))))
                ticks, spans = [], [[]]
            case "threads" if values != [1]:
                raise VerifyError(f"the program started {values[0]} threads, expected one.")
    return found
