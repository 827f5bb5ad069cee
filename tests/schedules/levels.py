"""The targets that kernels are run on."""

from functools import cache

import pytest

from gsb_tvm.targets import Profile, missing_here, resolve

LEVELS = ("znver5", "skylake-avx512", "haswell", "x86-64")
profile_of = cache(resolve)


def runnable(target: str) -> Profile:
    """Profile of a target such as "llvm -mcpu=haswell"; skips the test where it cannot run."""
    profile = profile_of(target)
    if lacking := missing_here(profile):
        pytest.skip(f"this machine lacks {', '.join(lacking)}")
    return profile
