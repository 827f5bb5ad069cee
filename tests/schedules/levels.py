"""The targets that kernels are run on."""

from functools import cache
from typing import Any

import pytest
import tvm

from gsb_tvm.runtime import emulate, toolchains
from gsb_tvm.runtime.codegen import lowering
from gsb_tvm.targets import Profile, missing_here, resolve
from tests import amx
from tests.schedules.emulated import Emulated

LEVELS = ("znver5", "skylake-avx512", "haswell", "x86-64")
ARM = ("cortex-a72", "cortex-a53", "neoverse-n1")
"""Out of order, in order, with dot products; under qemu, 20 ms a call, where this is no Arm."""
ALL = (*LEVELS, ARM[0])
"""What every family is tested on; the other two are for dense layers and the campaign."""
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
    if is_emulated(profile):
        can_link = any(tool.program for tool in toolchains.find(profile))
        return emulate.skip_reason(profile) or ("" if can_link else toolchains.no_compiler(profile))
    if not amx.FEATURES.issuperset(lacking):
        return f"this machine lacks {', '.join(lacking)}"
    if not amx.lacking():
        amx.emulator()
    return amx.lacking()


def is_emulated(profile: Profile) -> bool:
    """Whether kernels for ``profile`` run as programs of their own under qemu."""
    return profile.arch == "aarch64" and bool(missing_here(profile))


def compiled(func: Any, profile: Profile) -> Any:
    """Library of one function, ``main``, which runs here or under qemu."""
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    with lowering():
        library = tvm.compile(module, target=profile.tvm_target())
    return Emulated(library, profile) if is_emulated(profile) else library


def runnable(target: str) -> Profile:
    """Profile of a target such as "llvm -mcpu=haswell"; skips the test where it cannot run."""
    profile = profile_of(target)
    if reason := obstacle(profile):
        pytest.skip(reason)
    return profile
