"""Functions of tests in processes of their own, which have the stand-in for NVIDIA's driver."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.libcuda.build import environment

ROOT = Path(__file__).parents[2]
_CALL = """
import importlib, sys
from gsb_tvm.dialect.without_torch import without_torch
module, function, *arguments = sys.argv[1:]
with without_torch():
    getattr(importlib.import_module(module), function)(*arguments)
"""


def call(
    function: Callable[..., Any], *arguments: object, kernels: Path, **settings: object
) -> str:
    """Call ``function`` of a test module with texts; fails where it does. What it printed."""
    words = [function.__module__, function.__name__, *map(str, arguments)]
    done = subprocess.run(
        [sys.executable, "-c", _CALL, *words],
        cwd=ROOT,
        env=environment(kernels, **settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr[-6000:]}"
    return done.stdout


def count(what: str) -> int:
    """How many there are, or were: ``stand_in_count`` of the stand-in, in such a process."""
    library = ctypes.CDLL("libcuda.so.1")
    library.stand_in_count.restype = ctypes.c_size_t
    return int(library.stand_in_count(what.encode()))
