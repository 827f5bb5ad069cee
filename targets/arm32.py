"""Recognising 32-bit Arm, which no code is generated for, and saying so.

LLVM could. But artefacts are written, read and loaded as 64-bit ELF files throughout, and a core
has 16 vector registers there instead of 32, so every register tile would be another. Boards that
a vision transformer is put on are 64-bit ones, often with a 32-bit system.
"""

import re

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import llvm
from gsb_tvm.targets.features import BASELINE

# arm, armhf, armv6kz, armv7l, armv8l, thumbv7neon. Names of 64-bit systems begin otherwise: arm64,
# arm64e, armv8-a, armv9-a. Source: LLVM, llvm/TargetParser/Triple and ARMTargetParser.
_FAMILY = re.compile(r"(arm|thumb)(eb|hf|el|v[2-7]\w*|v8l)?", re.IGNORECASE)


def is_family(name: str) -> bool:
    """Whether ``name``, or the first word of a triple, means some 32-bit Arm."""
    return _FAMILY.fullmatch(name.partition("-")[0]) is not None


def is_meant(name: str) -> bool:
    """Whether ``name`` is a family, a triple or a CPU of 32-bit Arm and no 64-bit CPU."""
    if any(llvm.is_cpu(name, arch) for arch in llvm.TRIPLES):
        return False
    return is_family(name) or llvm.is_arm32_cpu(name)


def refused(text: str, name: str, cpu: str = "") -> TargetError:
    """Build the error for the target ``text``, in which ``name`` is 32-bit Arm.

    ``cpu`` is the CPU that was asked for with it; where it has a 64-bit mode, that is the way out.
    """
    if cpu and llvm.is_cpu(cpu, "aarch64") and llvm.features("aarch64", cpu) >= BASELINE["aarch64"]:
        way = (
            f'"{cpu}" also runs 64-bit code: install a 64-bit system and write "llvm -mcpu={cpu}".'
        )
    else:
        way = (
            "Raspberry Pi 3, 4 and 5 run a 64-bit system: install one and write "
            '"llvm -mcpu=cortex-a53", "llvm -mcpu=cortex-a72" or "llvm -mcpu=cortex-a76".'
        )
    return TargetError(
        f'target "{text}": "{name}" is 32-bit Arm; code is generated for 64-bit Arm only. {way}'
    )
