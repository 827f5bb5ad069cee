"""A GPU of this machine as the place where candidates run."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gsb_tvm.dialect.errors import GpuError, UsageError
from gsb_tvm.runtime.cuda.driver import CudaDevice, Device
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.gpu_machine import GpuMachine
from gsb_tvm.tuning.isolation import Failure, Isolation, Limits, TrialLost

_WAKE_S = 60.0  # that a driver may need before it does anything, longest where there are many GPUs


@dataclass(frozen=True)
class Chip:
    """What a GPU is: its name, the architecture of its code, and how much of it there is."""

    name: str
    arch: str
    multiprocessors: int

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.name} ({self.arch}, {self.multiprocessors} multiprocessors)"


def chip_of(device: Device) -> Chip:
    """What a GPU is."""
    major, minor = device.capability()
    return Chip(device.name(), f"sm_{major}{minor}", device.multiprocessors())


def opened() -> CudaDevice:
    """The first GPU, for a trial.

    Raises
    ------
    TrialLost
        There is none, or it cannot be used now.
    """
    try:
        return CudaDevice(0)
    except (UsageError, GpuError) as err:
        raise TrialLost(str(err)) from err


@dataclass(frozen=True)
class GpuHere:
    """The first GPU of the machine that runs the tuner that CUDA_VISIBLE_DEVICES leaves."""

    advice = "nvidia-smi shows the GPU"

    @contextmanager
    def open(self, seconds: float) -> Iterator[GpuMachine]:
        """The GPU; SIGALRM ends the process that uses it for longer, whatever the driver does.

        Raises
        ------
        TrialLost
            It cannot be used now.
        """
        machine = GpuMachine(opened())
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield machine
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def limits(self, seconds: float, _memory_bytes: int) -> Limits:
        """Longer by what the driver needs to wake up; memory is the GPU's own."""
        return Limits(_WAKE_S + seconds, None)


def gpu_here(profile: Profile) -> tuple[GpuHere, Chip]:
    """The GPU of this machine as a place, and what it is.

    Raises
    ------
    UsageError
        There is none, or it is of another architecture than ``profile``.
    """
    assert profile.gpu is not None
    board = "Tune on a board that has one: gsb-tvm tune --tracker HOST:PORT --key NAME."
    # In a process of its own: this one goes on for long, and would keep some of the GPU's memory.
    with Isolation() as isolation:
        found = isolation.call(look, [], Limits(_WAKE_S, None))
    if isinstance(found, Failure):
        reason = found.reason.rstrip(".")
        raise UsageError(f"code for {profile.name} does not run here: {reason}. {board}")
    if found.arch != profile.gpu.arch:
        raise UsageError(
            f"code for {profile.name} is not tuned here: the GPU is {found.text}. Take --target "
            f"cuda -arch={found.arch}, or another GPU by CUDA_VISIBLE_DEVICES. {board}"
        )
    return GpuHere(), found


def look() -> Chip:
    """What the first GPU is.

    Raises
    ------
    TrialLost
        There is none.
    """
    return chip_of(opened())
