"""An end to waiting in a library that has none of its own."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Expired(Exception):
    """A wait has come to its end."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise :class:`Expired` when the block takes longer; for the main thread, by SIGALRM.

    It comes again each second, as TVM may turn the first into an error of its own.
    """
    is_late = False

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_late
        is_late = True
        raise Expired(f"no answer within {seconds:.0f} s")

    begin = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    theirs, interval = signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), 1.0)
    try:
        yield
    except RuntimeError as err:
        if is_late:
            raise Expired(f"no answer within {seconds:.0f} s") from err
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
        if theirs:
            left = max(begin + theirs - time.monotonic(), 0.001)
            signal.setitimer(signal.ITIMER_REAL, left, interval)
