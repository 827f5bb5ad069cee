"""Asking Linux for the tiles of AMX.

Their 8 kB belong to a process's state only once it has asked for them; before, the first tile
instruction ends it with SIGILL. Threads and forks inherit the answer, another program does not.
Linux before 5.16 knows no tiles, and a container may forbid the call.

Source: Linux, Documentation/arch/x86/xstate.rst.
"""

import ctypes
import os
from collections.abc import Iterable
from functools import cache

REQUEST = (158, 0x1023, 18)
"""arch_prctl, ARCH_REQ_XCOMP_PERM and XFEATURE_XTILEDATA: arguments of ``syscall``.

Source: Linux, asm/unistd_64.h, asm/prctl.h, asm/fpu/types.h.
"""


def tile_features(features: Iterable[str]) -> frozenset[str]:
    """Those of ``features`` (names of /proc/cpuinfo) that need the permission."""
    return frozenset(name for name in features if name.startswith("amx_"))


@cache
def ask_for_tiles() -> str:
    """Ask, once per process; empty where they are granted, else the reason, of x86-64 only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*REQUEST) == 0:
        return ""
    return os.strerror(ctypes.get_errno())
