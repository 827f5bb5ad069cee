"""Where candidates run: a CPU or GPU of this machine, in this process, or a board of a farm.

All offer the same: loading a kernel, tensors, and the mean time of a call.
"""

import gc
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gsb_tvm.runtime.kernel_library import NAME
from gsb_tvm.targets.host import host
from gsb_tvm.tuning.isolation import Limits, TrialError

Array = npt.NDArray[Any]
Function = Callable[..., Any]

_ALIGNMENT = 64
_GUARD = 4096  # bytes on either side of a tensor
_GUARD_BYTE = 0xA5


class Machine(Protocol):
    """A machine that runs kernels."""

    def load(self, path: Path) -> Any:
        """The kernel of a file, a function of tensors."""

    def tensor(self, array: Array) -> Any:
        """A tensor of the machine's with the contents of an array."""

    def numpy(self, tensor: Any) -> Array:
        """The contents of a tensor.

        Raises
        ------
        TrialError
            What stands around it was overwritten, where that can be seen.
        """

    def seconds(self, function: Any, argument_sets: Sequence[Sequence[Any]], calls: int) -> float:
        """Mean time of a call; where that can be, with one set of arguments after another."""


class Place(Protocol):
    """How to get at a machine: plain data that travels to the process that uses it."""

    @property
    def advice(self) -> str:
        """Where a user can see whether it is well."""

    def open(self, seconds: float) -> AbstractContextManager[Machine]:
        """The machine, for as long as the context lasts: ``seconds`` at most."""

    def limits(self, seconds: float, memory_bytes: int) -> Limits:
        """Of a process that uses the machine for ``seconds``, and so much memory beside it."""


@dataclass(frozen=True)
class Here:
    """The machine that runs the tuner; kernels run on its last CPU that the process may use."""

    advice = "see gsb-tvm doctor"

    def open(self, seconds: float) -> "LocalMachine":
        """The machine; the process that uses it is ended by others."""
        return LocalMachine()

    def limits(self, seconds: float, memory_bytes: int) -> Limits:
        """No more than that."""
        return Limits(seconds, memory_bytes)


@dataclass
class LocalMachine:
    """Kernels in this process, their tensors between guards."""

    _memory: dict[int, tuple[Any, Array]] = field(default_factory=dict)

    def __enter__(self) -> "LocalMachine":
        host()  # where the CPU has AMX, Linux is asked for it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        gc.disable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._memory.clear()
        gc.enable()

    def load(self, path: Path) -> Function:
        """The kernel of a library."""
        import tvm

        return tvm.runtime.load_module(str(path))[NAME]

    def tensor(self, array: Array) -> Any:
        """A tensor with bytes before and after it that no kernel may touch."""
        import tvm_ffi

        memory = np.full(array.nbytes + 2 * _GUARD + _ALIGNMENT, _GUARD_BYTE, np.uint8)
        start = _GUARD + -(memory.ctypes.data + _GUARD) % _ALIGNMENT
        inside = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        inside[...] = array
        tensor = tvm_ffi.from_dlpack(inside)
        self._memory[id(tensor)] = (tensor, memory)
        return tensor

    def numpy(self, tensor: Any) -> Array:
        """The contents of a tensor, whose guards must stand."""
        _, memory = self._memory[id(tensor)]
        array: Array = np.from_dlpack(tensor)
        start = array.ctypes.data - memory.ctypes.data
        before, after = memory[:start], memory[start + array.nbytes :]
        if (before != _GUARD_BYTE).any() or (after != _GUARD_BYTE).any():
            raise TrialError("wrote outside its tensors")
        return array

    def seconds(
        self, function: Function, argument_sets: Sequence[Sequence[Any]], calls: int
    ) -> float:
        """Mean time of a call, with one set of arguments after another.

        Time of this thread's on the CPU: what others take meanwhile is none of the kernel's.
        """
        order = [argument_sets[i % len(argument_sets)] for i in range(calls)]
        start = time.thread_time()
        for arguments in order:
            function(*arguments)
        return (time.thread_time() - start) / calls
