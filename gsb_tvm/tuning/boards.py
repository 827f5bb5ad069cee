"""The boards of a farm as the place where candidates run."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.farm import Address, require
from gsb_tvm.tuning.isolation import Limits
from gsb_tvm.tuning.machines import Machine
from gsb_tvm.tuning.remote import RemoteMachine
from gsb_tvm.tuning.remote_gpu import RemoteGpu
from gsb_tvm.tuning.sessions import BoardLost, longest_s

_LOOK_SECONDS = 10.0
_WAKE_SECONDS = 20.0  # of a session, that a GPU's driver may need before it does anything


@dataclass(frozen=True)
class Boards:
    """Whichever board of a key is free."""

    tracker: Address
    key: str
    advice = "gsb-tvm device list shows the boards"

    def open(self, seconds: float) -> AbstractContextManager[Machine]:
        """A session on one of them, which the board ends after ``seconds``."""
        return RemoteMachine(self.tracker, self.key, seconds)

    def limits(self, seconds: float, memory_bytes: int) -> Limits:
        """Longer by the wait for a board that others use, and for word from one."""
        return Limits(longest_s(seconds), memory_bytes)


@dataclass(frozen=True)
class GpuBoards(Boards):
    """The GPU, of an architecture, of whichever board of a key is free."""

    arch: str

    @contextmanager
    def open(self, seconds: float) -> Iterator[RemoteGpu]:
        """A session on one of them, which the board ends after ``seconds`` and its driver's.

        Raises
        ------
        BoardLost
            No board came free in time, or one that has no such GPU.
        """
        with RemoteGpu(self.tracker, self.key, _WAKE_SECONDS + seconds) as machine:
            if unfit := machine.unfit(self.arch):
                raise BoardLost(unfit)
            yield machine

    def limits(self, seconds: float, memory_bytes: int) -> Limits:
        """Longer by the wait for a board, and by what its driver needs to wake up."""
        return super().limits(_WAKE_SECONDS + seconds, memory_bytes)


def boards_of(tracker: Address, key: str, profile: Profile) -> tuple[Boards, int]:
    """The boards of a key, and how many there are now.

    Raises
    ------
    UsageError
        No tracker answers, or no board has come to it under this key; or one is of another
        architecture than ``profile``, or lacks its GPU.
    """
    count = require(tracker, key)
    if profile.gpu is not None:
        gpus = GpuBoards(tracker, key, profile.gpu.arch)
        if unfit := _unfit(gpus):
            raise UsageError(
                f'the boards with the key "{key}" are not for {profile.name}: {unfit}. '
                "Name their GPU with --target, or another key."
            )
        return gpus, count
    triple = _triple(tracker, key)
    if triple and triple.partition("-")[0] != profile.arch:
        raise UsageError(
            f'the boards with the key "{key}" are {triple}, and {profile.name} is '
            f"{profile.mtriple}. Name their CPU with --target, or another key."
        )
    return Boards(tracker, key), count


def _unfit(boards: GpuBoards) -> str:
    """Why a board has not the GPU; "" where it has, or none is free to be asked."""
    try:
        with RemoteGpu(boards.tracker, boards.key, _WAKE_SECONDS, wait_s=_LOOK_SECONDS) as machine:
            return machine.unfit(boards.arch)
    except BoardLost:
        return ""


def _triple(tracker: Address, key: str) -> str:
    """What a board says it is; "" where it does not, or none is free to be asked."""
    try:
        with RemoteMachine(tracker, key, _LOOK_SECONDS, wait_s=_LOOK_SECONDS) as machine:
            _, triple = machine.cpu()
    except BoardLost:
        return ""
    return triple
