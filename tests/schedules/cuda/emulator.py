"""Generated CUDA source on this CPU: ``emulator.hpp`` says how."""

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsb_tvm.runtime.cuda.launches import Kernel, Kernels
from gsb_tvm.runtime.cuda.nvrtc import HEADERS

Array = npt.NDArray[Any]

HERE = Path(__file__).parent
_GUARD = 4096  # bytes before and behind a tensor that nobody may write
_PATTERN = 0xC3


@dataclass(frozen=True)
class Way:
    """In what order threads and blocks run, and whether copies happen as late as they may.

    ``order`` 0 is forwards, 1 backwards, any other the seed of a random order.
    """

    order: int = 0
    lazy: bool = True


WAYS = (Way(0), Way(1, lazy=False), Way(7))


class Memory:
    """A tensor between guards, 256-byte aligned."""

    def __init__(self, data: Array) -> None:
        self._data = np.ascontiguousarray(data).reshape(np.shape(data))
        size = self._data.nbytes
        raw = np.full(size + 2 * _GUARD + 256, _PATTERN, np.uint8)
        start = -(raw.ctypes.data + _GUARD) % 256 + _GUARD
        self._raw, self._start, self._end = raw, start, start + size
        raw[start : start + size] = self._data.reshape(-1).view(np.uint8)

    @property
    def pointer(self) -> int:
        """Address of the first element."""
        return int(self._raw.ctypes.data) + self._start

    def read(self) -> Array:
        """The tensor; fails where something was written beside it."""
        before, behind = self._raw[: self._start], self._raw[self._end :]
        assert (before == _PATTERN).all(), "written before a tensor"
        assert (behind == _PATTERN).all(), "written behind a tensor"
        inside = self._raw[self._start : self._end].copy()
        return inside.view(self._data.dtype).reshape(self._data.shape)


_FUNCTION = re.compile(r'^extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(', re.M)


def compile_library(source: str, library: Path) -> None:
    """Compile generated source into a shared library.

    It runs launches by ``gsb_launch``; its table ``gsb_kernels`` has the functions and how many
    pointers each takes.
    """
    rows = [f'gsb::listed("{name}", {name}),' for name in dict.fromkeys(_FUNCTION.findall(source))]
    table = "\n".join(['extern "C" { gsb::Listed gsb_kernels[] = {', *rows, "{}}; }"])
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "cuda.h").touch()
        (folder / "math_constants.h").write_text(HEADERS["math_constants.h"], encoding="utf-8")
        text = f'#include "emulator.hpp"\n{source}\n{table}\n'
        (folder / "kernels.cpp").write_text(text, encoding="utf-8")
        command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-w", "-ffp-contract=off"]
        command += [f"-I{folder}", f"-I{HERE}", "kernels.cpp", "-o", str(library.resolve())]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[:4000]


class Emulated:
    """Compiled source of kernels."""

    def __init__(self, source: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name, "kernels.so")
        compile_library(source, library)
        self._library = ctypes.CDLL(str(library))
        self._library.gsb_error.restype = ctypes.c_char_p

    def launch(
        self,
        function: str,
        grid: Sequence[int],
        block: Sequence[int],
        pointers: Sequence[int],
        way: Way = WAYS[0],
    ) -> None:
        """Run a function of the source on tensors at these addresses."""
        count = len(pointers)
        target = ctypes.cast(getattr(self._library, function), ctypes.c_void_p)
        failed = self._library.gsb_launch(
            target,
            (ctypes.c_void_p * count)(*pointers),
            count,
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            ctypes.c_uint(way.order),
            int(way.lazy),
        )
        assert not failed, f"{function}: {self._library.gsb_error().decode()}"


def run(
    emulated: Emulated, kernel: Kernel, tensors: Mapping[int, Memory], way: Way = WAYS[0]
) -> None:
    """Every launch of a kernel on its tensors; state is zero before and must be zero behind."""
    scratch = Memory(np.full(kernel.scratch_bytes, 0x5A, np.uint8))
    state = Memory(np.zeros(kernel.state_bytes, np.uint8))
    for launch in kernel.launches:
        pointers = [
            {
                "tensor": lambda at: tensors[at].pointer,
                "scratch": lambda at: scratch.pointer + at,
                "state": lambda at: state.pointer + at,
            }[argument.kind](argument.at)
            for argument in launch.arguments
        ]
        emulated.launch(launch.function, launch.grid, launch.block, pointers, way)
    scratch.read()
    assert not state.read().any(), "a kernel left something in its state"


def outputs(
    kernels: Kernels,
    name: str,
    emulated: Emulated,
    inputs: Sequence[Array],
    wanted: Sequence[Array],
    way: Way = WAYS[0],
) -> list[Array]:
    """What a kernel makes of ``inputs``; outputs have shapes and dtypes of ``wanted``."""
    garbage = [np.full(a.nbytes, 0xB7, np.uint8).view(a.dtype).reshape(a.shape) for a in wanted]
    memories = [Memory(array) for array in (*inputs, *garbage)]
    run(emulated, kernels.kernels[name], dict(enumerate(memories)), way)
    for memory, array in zip(memories, inputs, strict=False):
        assert memory.read().tobytes() == np.ascontiguousarray(array).tobytes(), "input changed"
    return [memory.read() for memory in memories[len(inputs) :]]
