"""Generated CUDA source on this CPU: ``emulator.cc`` says how."""

import ctypes
import mmap
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from gsb_tvm.runtime.cuda.launches import Kernel, Kernels
from gsb_tvm.runtime.cuda.nvrtc import HEADERS

Array = npt.NDArray[Any]

HERE = Path(__file__).parent
_PAGE = mmap.PAGESIZE
_GUARD = 256 * _PAGE  # before and behind a tensor: nobody may touch it
_ALIGNMENT = 16  # of a tensor that ends at a page: what the longest load and copy ask for
_PATTERN = 0xC3  # between a tensor and the next page


@dataclass(frozen=True)
class Way:
    """In what order threads and blocks run, and where tensors stand.

    Attributes
    ----------
    order
        0 is forwards, 1 backwards, any other the seed of a random order.
    lazy
        Whether copies happen as late as they may.
    at_start
        Whether tensors begin behind a page that nobody may touch, or end before one.
    """

    order: int = 0
    lazy: bool = True
    at_start: bool = False


WAYS = (Way(0), Way(1, lazy=False, at_start=True), Way(7))


class Memory:
    """A tensor between pages that nobody may touch.

    It ends where such a page begins, or with ``at_start`` begins behind one.
    """

    def __init__(self, data: Array, at_start: bool = False) -> None:
        self._data = np.ascontiguousarray(data).reshape(np.shape(data))
        size = self._data.nbytes
        inside = max(_PAGE, -(-size // _PAGE) * _PAGE)
        mapped = mmap.mmap(-1, inside + 2 * _GUARD, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        whole = np.frombuffer(mapped, np.uint8)
        base = int(whole.ctypes.data)
        for guard in (base, base + _GUARD + inside):
            assert _LIBC.mprotect(ctypes.c_void_p(guard), _GUARD, _PROT_NONE) == 0
        self._raw = whole[_GUARD : _GUARD + inside]
        self._raw[:] = _PATTERN
        self._start = 0 if at_start else (inside - size) // _ALIGNMENT * _ALIGNMENT
        self._end = self._start + size
        self._raw[self._start : self._end] = self._data.reshape(-1).view(np.uint8)
        _MEMORIES.add(self)

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

    def beside(self, address: int) -> str | None:
        """How far beside the tensor an address of its guards lies; None if it lies elsewhere."""
        size, at = self._data.nbytes, address - self.pointer
        if -_GUARD - self._start <= at < 0:
            return f"{-at} bytes before a tensor of {size}"
        if size <= at < self._raw.size - self._start + _GUARD:
            return f"{at - size} bytes behind a tensor of {size}"
        return None


_LIBC = ctypes.CDLL(None)
_PROT_NONE = 0
_MEMORIES: WeakSet[Memory] = WeakSet()


def _beside(address: int) -> str:
    found = (memory.beside(address) for memory in _MEMORIES)
    return next((where for where in found if where), f"at {address:#x}")


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
        kernels = folder / "kernels.cc"
        kernels.write_text(f'#include "emulator.hpp"\n{source}\n{table}\n', encoding="utf-8")
        _compile(kernels, _threads(), f"-I{folder}", "-w", "-shared", "-o", library.resolve())


@cache
def _threads() -> Path:
    """What runs threads, compiled once."""
    made = Path(_folder().name, "emulator.o")
    _compile(HERE / "emulator.cc", "-c", "-o", made)
    return made


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="emulator-")


def _compile(*arguments: str | Path) -> None:
    # Without fused multiply-adds of the compiler's, and for this very machine: it counts bits.
    options = ["-std=c++17", "-O1", "-march=native", "-ffp-contract=off", "-fPIC", f"-I{HERE}"]
    command = ["g++", *options, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


class Emulated:
    """Compiled source of kernels."""

    def __init__(self, source: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "kernels.so")
            compile_library(source, library)
            self._library = ctypes.CDLL(str(library))
        self._library.gsb_error.restype = ctypes.c_char_p
        self._library.gsb_stray.restype = ctypes.c_void_p

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
        if failed:
            stray, why = self._library.gsb_stray(), self._library.gsb_error().decode()
            where = f", {_beside(stray or 0)}" if "nobody" in why else ""
            raise AssertionError(f"{function}: {why}{where}")


def run(
    emulated: Emulated, kernel: Kernel, tensors: Mapping[int, Memory], way: Way = WAYS[0]
) -> None:
    """Every launch of a kernel on its tensors; state is zero before and must be zero behind."""
    scratch = Memory(np.full(kernel.scratch_bytes, 0x5A, np.uint8), way.at_start)
    state = Memory(np.zeros(kernel.state_bytes, np.uint8), way.at_start)
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
    memories = [Memory(array, way.at_start) for array in (*inputs, *garbage)]
    run(emulated, kernels.kernels[name], dict(enumerate(memories)), way)
    for memory, array in zip(memories, inputs, strict=False):
        assert memory.read().tobytes() == np.ascontiguousarray(array).tobytes(), "input changed"
    return [memory.read() for memory in memories[len(inputs) :]]
