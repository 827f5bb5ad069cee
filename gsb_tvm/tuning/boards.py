"""The boards of a farm as the place where candidates run."""

from dataclasses import dataclass

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.farm import Address, require
from gsb_tvm.tuning.remote import BoardLost, RemoteMachine, longest_s

_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Boards:
    """Whichever board of a key is free."""

    tracker: Address
    key: str

    def open(self, seconds: float) -> RemoteMachine:
        """A session on one of them, which the board ends after ``seconds``."""
        return RemoteMachine(self.tracker, self.key, seconds)

    def longest_s(self, seconds: float) -> float:
        """Longer by the wait for a board that others use, and for word from one."""
        return longest_s(seconds)


def boards_of(tracker: Address, key: str, profile: Profile) -> tuple[Boards, int]:
    """The boards of a key, and how many there are now.

    Raises
    ------
    UsageError
        No tracker answers, or no board has come to it under this key; or one is of another
        architecture than ``profile``.
    """
    count = require(tracker, key)
    triple = _triple(tracker, key)
    if triple and triple.partition("-")[0] != profile.arch:
        raise UsageError(
            f'the boards with the key "{key}" are {triple}, and {profile.name} is '
            f"{profile.mtriple}. Name their CPU with --target, or another key."
        )
    return Boards(tracker, key), count


def _triple(tracker: Address, key: str) -> str:
    """What a board says it is; "" where it does not, or none is free to be asked."""
    try:
        with RemoteMachine(tracker, key, _LOOK_SECONDS, wait_s=_LOOK_SECONDS) as machine:
            _, triple = machine.cpu()
    except BoardLost:
        return ""
    return triple
