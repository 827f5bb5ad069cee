"""A board's GPU at the board's end of a session: functions that it offers to tuners by TVM's RPC.

A tuner sends kernels and tensors and gets numbers for them. Each session is a process of its own,
forked from a server that has never touched the GPU: drivers do not survive a fork, and what a
kernel does to its process ends with the session.
"""

import json
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from gsb_tvm.runtime.cuda.driver import CudaDevice
from gsb_tvm.tuning.gpu_machine import Array, GpuFunction, GpuMachine, GpuTensor
from gsb_tvm.tuning.gpus import Chip, chip_of, look, opened
from gsb_tvm.tuning.isolation import TrialLost

PREFIX = "gsb_tvm.gpu."
"""Begins the names of the functions."""

LOST = "lost: "
"""Begins what is said of an error that is no kernel's fault; RPC carries nothing but the words."""

_LOOK_S = 60.0  # a driver may need long to wake up


class Service:
    """What one session has on the GPU; kernels and tensors go by number."""

    def __init__(self) -> None:
        self._device: CudaDevice | None = None
        self._functions: list[GpuFunction] = []
        self._tensors: list[GpuTensor] = []
        self._arrays: list[Array] = []  # what each was made of

    def functions(self) -> dict[str, Callable[..., Any]]:
        """All that is offered, by name."""
        offered = (
            self.chip,
            self.load,
            self.tensor,
            self.again,
            self.numpy,
            self.call,
            self.seconds,
        )
        return {PREFIX + each.__name__: _marked(each) for each in offered}

    def _gpu(self) -> CudaDevice:
        if self._device is None:
            self._device = opened()
        return self._device

    @property
    def _machine(self) -> GpuMachine:
        return GpuMachine(self._gpu())

    def chip(self) -> str:
        """What the GPU is, as JSON; raises where there is none."""
        return json.dumps(asdict(chip_of(self._gpu())))

    def load(self, data: bytes) -> int:
        """Load a kernel."""
        self._functions.append(self._machine.loaded(bytes(data)))
        return len(self._functions) - 1

    def tensor(self, data: bytes, dtype: str, *shape: int) -> int:
        """Make a tensor of a shape."""
        return self._tensor(np.frombuffer(bytes(data), dtype).reshape(shape))

    def again(self, tensor: int) -> int:
        """Make another tensor of what one was made of."""
        return self._tensor(self._arrays[tensor])

    def _tensor(self, array: Array) -> int:
        self._tensors.append(self._machine.tensor(array))
        self._arrays.append(array)
        return len(self._tensors) - 1

    def numpy(self, tensor: int) -> bytearray:
        """The bytes of a tensor."""
        return bytearray(self._machine.numpy(self._tensors[tensor]).tobytes())

    def call(self, function: int, *tensors: int) -> None:
        """Run a kernel once, to its end."""
        self._functions[function](*(self._tensors[each] for each in tensors))

    def seconds(self, function: int, calls: int, width: int, *tensors: int) -> float:
        """Mean time of a call; sets of ``width`` tensors stand one behind the other."""
        every = [self._tensors[each] for each in tensors]
        sets = [every[at : at + width] for at in range(0, len(every), width)]
        return self._machine.seconds(self._functions[function], sets, calls)


def _marked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that says of an error where it is no kernel's fault."""

    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except TrialLost as err:
            raise RuntimeError(f"{LOST}{err}") from err

    return call


def offer() -> None:
    """Let sessions that are forked from this process use the GPU."""
    import tvm_ffi

    for name, function in Service().functions().items():
        tvm_ffi.register_global_func(name, function, override=True)


def chip_here() -> Chip | None:
    """What the GPU of this machine is; None where there is none to use. Leaves no driver behind."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender,), daemon=True)
    process.start()
    sender.close()
    try:
        found = receiver.recv() if receiver.poll(_LOOK_S) else None
    except EOFError:
        found = None
    process.kill()
    process.join()
    return found


def _tell(sender: Connection) -> None:
    with suppress(TrialLost):
        sender.send(look())
