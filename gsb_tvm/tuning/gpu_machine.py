"""A GPU as the machine that a trial runs on: its own process, which ends with the trial.

Where a kernel does what it must not, the driver refuses all that follows in the process. Nothing
here gives memory back or ends anything: the driver does both when the process ends.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsb_tvm.dialect.errors import ArtefactError, GpuError, UsageError
from gsb_tvm.runtime.cuda.driver import Device, LaunchNode, Pointer
from gsb_tvm.runtime.cuda.kernel_file import GpuKernel, decode
from gsb_tvm.tuning.isolation import TrialError, TrialLost

Array = npt.NDArray[Any]

_STREAM = 0
_GUARD = 4096  # bytes on either side of a tensor, which stays aligned to 256
_GUARD_BYTE = 0xA5
_GARBAGE = 0x5A  # in scratch, before the first call

# CUresult of cuda.h: what befalls a GPU whatever code it runs.
_NOT_OF_THE_CODE = (
    "CUDA_ERROR_OUT_OF_MEMORY",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_DEVICE_UNAVAILABLE",
    "CUDA_ERROR_SYSTEM_NOT_READY",
)


@dataclass(frozen=True)
class GpuTensor:
    """Memory of the GPU between guards; ``start`` is where the one before it begins."""

    start: Pointer
    shape: tuple[int, ...]
    dtype: str

    @property
    def pointer(self) -> Pointer:
        """Of the first element."""
        return self.start + _GUARD

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class GpuFunction:
    """A loaded kernel, called with tensors: inputs, then outputs."""

    def __init__(self, machine: "GpuMachine", device: Device, kernel: GpuKernel) -> None:
        self._machine, self._device, self._kernel = machine, device, kernel
        module = device.load(kernel.code)
        names = {launch.function for launch in kernel.launches}
        self._functions = {name: device.function(module, name) for name in names}
        scratch = np.full(kernel.scratch_bytes, _GARBAGE, np.uint8)
        state = np.zeros(kernel.state_bytes, np.uint8)
        self._memory = machine.tensor(np.concatenate([scratch, state]))

    def nodes(self, tensors: Sequence[GpuTensor]) -> list[LaunchNode]:
        """The launches of a call."""

        def pointer(where: str, at: int) -> Pointer:
            return tensors[at].pointer if where == "input" else self._memory.pointer + at

        return [
            LaunchNode(
                self._functions[launch.function],
                launch.grid,
                launch.block,
                tuple(pointer(each.where, each.at) for each in launch.arguments),
            )
            for launch in self._kernel.launches
        ]

    def __call__(self, *tensors: GpuTensor) -> None:
        """Run it once, to its end.

        Raises
        ------
        TrialError
            The GPU stopped it, or it wrote beside its memory, or left something in its state.
        TrialLost
            The GPU is not well.
        """
        with _judged():
            for node in self.nodes(tensors):
                self._device.run(node, _STREAM)
            self._device.synchronize(_STREAM)
        memory = self._machine.numpy(self._memory)
        if memory[self._kernel.scratch_bytes :].any():
            raise TrialError("left something in its state")


class GpuMachine:
    """Kernels on a GPU, one call behind the other."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def load(self, path: Path) -> GpuFunction:
        """The kernel of a file.

        Raises
        ------
        TrialError
            The driver refuses its code.
        """
        return self.loaded(path.read_bytes())

    def loaded(self, data: bytes) -> GpuFunction:
        """The kernel of a file's bytes."""
        with _judged():
            return GpuFunction(self, self._device, decode(data))

    def tensor(self, array: Array) -> GpuTensor:
        """A copy of an array, with bytes before and behind it that no kernel may touch.

        Raises
        ------
        TrialLost
            There is no room for it.
        """
        guard = np.full(_GUARD, _GUARD_BYTE, np.uint8)
        inside = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        whole = np.concatenate([guard, inside, guard])
        try:
            start = self._device.allocate(whole.nbytes)
        except UsageError as err:
            raise TrialLost(str(err)) from err
        self._device.upload(start, whole, _STREAM)
        return GpuTensor(start, array.shape, str(array.dtype))

    def numpy(self, tensor: GpuTensor) -> Array:
        """A copy of a tensor, whose guards must stand.

        Raises
        ------
        TrialError
            They do not.
        """
        whole = np.empty(tensor.size + 2 * _GUARD, np.uint8)
        with _judged():
            self._device.download(whole, tensor.start, _STREAM)
        end = _GUARD + tensor.size
        if (whole[:_GUARD] != _GUARD_BYTE).any() or (whole[end:] != _GUARD_BYTE).any():
            raise TrialError("wrote outside its tensors")
        return whole[_GUARD:end].view(tensor.dtype).reshape(tensor.shape)

    def seconds(
        self, function: GpuFunction, argument_sets: Sequence[Sequence[GpuTensor]], calls: int
    ) -> float:
        """Mean time of a call by the GPU's clock, with one set of arguments after another.

        All calls are one graph, as a model's are.

        Raises
        ------
        TrialError
            The GPU stopped a call.
        TrialLost
            The GPU is not well.
        """
        count = len(argument_sets)
        nodes = [node for i in range(calls) for node in function.nodes(argument_sets[i % count])]
        with _judged():
            return self._device.seconds(self._device.graph(nodes), _STREAM) / calls


@contextmanager
def _judged() -> Iterator[None]:
    """Say of an error of the driver's, or of code that it refuses, whose fault it is."""
    try:
        yield
    except (GpuError, ArtefactError) as err:
        if any(name in str(err) for name in _NOT_OF_THE_CODE):
            raise TrialLost(str(err)) from err
        raise TrialError(str(err)) from err
