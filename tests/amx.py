"""AMX for tests: the CPU's own where it has it, else the emulator of ``amx_emulator.c``."""

import ctypes
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from enum import IntEnum
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).with_name("amx_emulator.c")
FEATURES = frozenset({"amx_tile", "amx_int8"})
"""What the emulator stands in for, as /proc/cpuinfo calls it."""


class Kind(IntEnum):
    """Instructions that the emulator counts."""

    CONFIGURE = 0
    CLEAR = 1
    LOAD = 2
    STORE = 3
    MULTIPLY = 4


def compiler() -> tuple[str, ...]:
    """A C compiler's command; empty where there is none."""
    if path := shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"):
        return (path,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    return ()


def lacking() -> str:
    """Why the emulator cannot be used; empty where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "AMX is emulated on Linux on x86-64 only"
    return "" if compiler() else "the AMX emulator needs a C compiler (cc, or pip install ziglang)"


@cache
def emulator() -> ctypes.CDLL:
    """The emulator, compiled and handling SIGILL of this process from the first call on."""
    # The folder may go once the library is mapped.
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "amx_emulator.so")
        options = ("-O3", "-std=gnu11", "-shared", "-fPIC")
        subprocess.run([*compiler(), *options, str(SOURCE), "-o", str(library)], check=True)
        loaded = ctypes.CDLL(str(library), use_errno=True)
    loaded.amx_count.restype = ctypes.c_uint64
    if loaded.amx_emulate():
        raise OSError(ctypes.get_errno(), "SIGILL cannot be handled")
    return loaded


def counts() -> dict[Kind, int]:
    """Tile instructions that this thread has executed in software."""
    return {kind: int(emulator().amx_count(kind)) for kind in Kind}
