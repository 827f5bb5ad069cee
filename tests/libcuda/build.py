"""A stand-in for NVIDIA's driver (``libcuda.cpp``), for processes that run without a GPU.

A process finds it by ``LD_LIBRARY_PATH``; :func:`environment` has that and what else it reads:

================= =============================================================
STAND_IN_KERNELS  folder of emulated code (:mod:`tests.libcuda.emulations`)
STAND_IN_ARCH     ten times the compute capability, 90 unless set
STAND_IN_GPUS     how many GPUs there are, 1 unless set
STAND_IN_MEMORY   bytes of memory of each, 4 GiB unless set
STAND_IN_SAY      if set, each refusal is explained on standard error
================= =============================================================

``stand_in_count(const char*)`` of the library says how many "allocations", "modules", "graphs",
"executables", "streams", "events", "contexts" and "host" allocations there are, and how many
"kernels", "copies", "fills" and "launched" graphs there were.
"""

import ctypes.util
import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_COMMAND = ["g++", "-std=c++17", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
_COMMAND += ["-Werror", "-Wl,-soname,libcuda.so.1", "libcuda.cpp", "-ldl", "-o"]

without_driver = pytest.mark.skipif(
    ctypes.util.find_library("cuda") is not None, reason="this machine has NVIDIA's driver"
)
"""Of tests of what is said where there is none."""


@cache
def driver() -> Path:
    """A folder with ``libcuda.so.1``, which is kept for later processes."""
    sources = sorted([*HERE.glob("*.cpp"), *HERE.glob("*.hpp")])
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    folder = Path(tempfile.gettempdir(), f"gsb-libcuda-{os.getuid()}-{digest[:16]}")
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / "libcuda.so.1"
    if not library.exists():
        made = library.with_name(f"{os.getpid()}.so")
        command = [*_COMMAND, str(made)]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]
        made.replace(library)
    return folder


def environment(kernels: Path, **settings: object) -> dict[str, str]:
    """Of a process that has a GPU: ``arch=80`` sets ``STAND_IN_ARCH``, and so on."""
    found = os.environ.get("LD_LIBRARY_PATH")
    path = f"{driver()}:{found}" if found else str(driver())
    return {**os.environ, "LD_LIBRARY_PATH": path, **_settings(kernels, **settings)}


def attaching(kernels: Path, **settings: object) -> str:
    """Python code that gives a GPU to a process that has started, before it asks for one."""
    return (
        "import ctypes, os\n"
        f"os.environ.update({_settings(kernels, **settings)!r})\n"
        f"ctypes.CDLL({str(driver() / 'libcuda.so.1')!r}, ctypes.RTLD_GLOBAL)\n"
    )


def _settings(kernels: Path, **settings: object) -> dict[str, str]:
    chosen = {f"STAND_IN_{name.upper()}": str(value) for name, value in settings.items()}
    return {"STAND_IN_KERNELS": str(kernels), **chosen}
