"""The boards of a farm as the place where candidates run."""

from dataclasses import dataclass

from gsb_tvm.tuning.farm import Address, require
from gsb_tvm.tuning.remote import RemoteMachine, longest_s


@dataclass(frozen=True)
class Boards:
    """Whichever board of a key is free.

    ``seconds`` is how long a trial may take on it; then the board ends it.
    """

    tracker: Address
    key: str
    seconds: float

    def open(self) -> RemoteMachine:
        """A session on one of them."""
        return RemoteMachine(self.tracker, self.key, self.seconds)

    def longest_s(self, seconds: float) -> float:
        """Longer by the wait for a board that others use, and for word from one."""
        return longest_s(max(seconds, self.seconds))


def boards_of(tracker: Address, key: str, seconds: float) -> tuple[Boards, int]:
    """The boards of a key, and how many there are now.

    Raises
    ------
    UsageError
        No tracker answers, or no board has come to it under this key.
    """
    return Boards(tracker, key, seconds), require(tracker, key)
