"""The targets that kernels are run on."""

from functools import cache

import pytest

from gsb_tvm.targets import Profile, missing_here, resolve
from tests import amx

LEVELS = ("znver5", "skylake-avx512", "haswell", "x86-64")
AMX = "sapphirerapids"
"""A level for dense layers only: no other family has tile products."""

# Of no use to any kernel, and missing on CPUs that run the rest with emulated tiles.
_AMX_TARGET = f"{AMX} -mattr=-avx512fp16,-avx512bf16,-avxvnni"
profile_of = cache(resolve)


def target_of(level: str) -> str:
    """The target of a level."""
    return f"llvm -mcpu={_AMX_TARGET if level == AMX else level}"


def obstacle(profile: Profile) -> str:
    """Why code for ``profile`` cannot run here; empty where it can.

    Tile products run on emulated tiles, from here on, where only the CPU's own are missing.
    """
    lacking = missing_here(profile)
    if not lacking:
        return ""
    if not amx.FEATURES.issuperset(lacking):
        return f"this machine lacks {', '.join(lacking)}"
    if not amx.lacking():
        amx.emulator()
    return amx.lacking()


def runnable(target: str) -> Profile:
    """Profile of a target such as "llvm -mcpu=haswell"; skips the test where it cannot run."""
    profile = profile_of(target)
    if reason := obstacle(profile):
        pytest.skip(reason)
    return profile
