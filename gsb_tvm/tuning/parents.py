"""Processes that end with the one that started them, however that ends."""

import ctypes
import signal

_PR_SET_PDEATHSIG = 1  # Source: Linux, linux/prctl.h.
_prctl = ctypes.CDLL(None, use_errno=True).prctl  # before any fork


def die_with_parent() -> None:
    """Have Linux kill this process when its parent dies; one that has died before is not seen."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
