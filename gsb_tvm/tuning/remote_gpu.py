"""A GPU of a farm's board as the machine that a trial runs on: a session with its service."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.tuning.farm import Address, text
from gsb_tvm.tuning.gpu_service import LOST, PREFIX
from gsb_tvm.tuning.gpus import Chip
from gsb_tvm.tuning.sessions import BoardLost, KernelFailed, Session


@dataclass(frozen=True)
class RemoteGpuTensor:
    """A tensor on the board by its number there."""

    number: int
    shape: tuple[int, ...]
    dtype: str


class RemoteGpuFunction:
    """A kernel on the board by its number there; called with tensors, inputs first."""

    def __init__(self, machine: "RemoteGpu", number: int) -> None:
        self._machine = machine
        self.number = number

    def __call__(self, *tensors: RemoteGpuTensor) -> None:
        """Run it once, to its end.

        Raises
        ------
        KernelFailed
            The GPU stopped it, or it did what it must not.
        BoardLost
            The board or its GPU went, or the session's time was up.
        """
        self._machine.run("call", self.number, *(each.number for each in tensors))


class RemoteGpu(Session):
    """A session on some board of a farm that runs kernels on the board's GPU."""

    def __init__(self, tracker: Address, key: str, timeout_s: float, **options: Any) -> None:
        super().__init__(tracker, key, timeout_s, **options)
        self._sent: dict[int, tuple[int, NDArray[Any]]] = {}  # arrays, by their identity

    def unfit(self, arch: str) -> str:
        """Why the board does not run code for an architecture; "" where it does.

        Raises
        ------
        BoardLost
            The board went.
        """
        where = text(self.board)
        try:
            chip = Chip(**json.loads(self._ask("chip")))
        except AttributeError:
            return f"{where} has a gsb-tvm that serves no GPU"
        except BoardLost as err:
            if self.is_broken:
                raise
            return str(err)
        return "" if chip.arch == arch else f"{where} has the GPU {chip.text}"

    def load(self, path: Path) -> Any:
        """Send a kernel.

        Raises
        ------
        KernelFailed
            The driver refuses it.
        BoardLost
            The board went.
        """
        return RemoteGpuFunction(self, int(self.run("load", path.read_bytes())))

    def tensor(self, array: NDArray[Any]) -> RemoteGpuTensor:
        """A copy of an array on the GPU, between guards.

        Raises
        ------
        BoardLost
            The board went, or its GPU has no room.
        """
        dtype, known = str(array.dtype), self._sent.get(id(array))
        if known is None:
            number = int(self._ask("tensor", array.tobytes(), dtype, *array.shape))
            self._sent[id(array)] = (number, array)
        else:  # constants of each layer: the same, and so often through what may be a slow line
            number = int(self._ask("again", known[0]))
        return RemoteGpuTensor(number, array.shape, dtype)

    def numpy(self, tensor: RemoteGpuTensor) -> NDArray[Any]:
        """A copy of a tensor here.

        Raises
        ------
        KernelFailed
            A kernel wrote beside it.
        BoardLost
            The board went.
        """
        data = bytes(self.run("numpy", tensor.number))
        return np.frombuffer(data, tensor.dtype).reshape(tensor.shape)

    def seconds(
        self,
        function: RemoteGpuFunction,
        argument_sets: Sequence[Sequence[RemoteGpuTensor]],
        calls: int,
    ) -> float:
        """Mean seconds of a call by the GPU's clock, with one set of arguments after another.

        Raises
        ------
        KernelFailed
            The GPU stopped a call.
        BoardLost
            The board or its GPU went, or the session's time was up.
        """
        numbers = [each.number for arguments in argument_sets for each in arguments]
        width = len(argument_sets[0])
        return float(self.run("seconds", function.number, calls, width, *numbers))

    def run(self, name: str, *arguments: Any) -> Any:
        """What a function of the board's service returns, where a kernel may be to blame."""
        try:
            with self.kernel():
                return self.remote.get_function(PREFIX + name)(*arguments)
        except KernelFailed as err:
            if (what := str(err)).startswith(LOST):
                raise BoardLost(f"{text(self.board)}: {what.removeprefix(LOST)}") from err
            raise

    def _ask(self, name: str, *arguments: Any) -> Any:
        """What a function of the board's service returns, where no kernel is to blame."""
        try:
            with self.guard():
                return self.remote.get_function(PREFIX + name)(*arguments)
        except BoardLost as err:
            if self.is_broken:
                raise
            raise BoardLost(str(err).replace(LOST, "", 1)) from err
