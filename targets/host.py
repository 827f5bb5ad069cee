"""What this machine has: CPU features, cores, caches, as the Linux kernel reports them."""

import os
import platform
import struct
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gsb_tvm.targets.feature_bits import KNOWN
from gsb_tvm.targets.permission import ask_for_tiles, tile_features
from gsb_tvm.targets.profile import Profile

# AT_HWCAP and AT_HWCAP2 of elf.h, in the order of the words of feature_bits.py.
_AT_HWCAPS = (16, 26)

_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_CACHE_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3}


@dataclass(frozen=True)
class Host:
    """The machine; sizes in bytes, 0 where the kernel does not say.

    ``features`` are names of /proc/cpuinfo (x86) or HWCAP (Arm) that this process may use.
    ``num_cores`` counts the cores it may use. ``tiles_refused`` says why Linux refuses the AMX that
    the CPU has; empty where it does not.
    """

    arch: str
    vendor: str
    features: frozenset[str]
    num_cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    tiles_refused: str = ""


@cache
def host() -> Host:
    """Return this machine, read once per process; where it has AMX, Linux is asked for it."""
    found = read_host(Path("/"), platform.machine(), len(os.sched_getaffinity(0)))
    return permitted(found, ask_for_tiles()) if tile_features(found.features) else found


def permitted(machine: Host, tiles_refused: str) -> Host:
    """``machine`` without AMX where that is refused."""
    if not tiles_refused:
        return machine
    features = machine.features - tile_features(machine.features)
    return replace(machine, features=features, tiles_refused=tiles_refused)


def read_host(root: Path, machine: str, num_cores: int) -> Host:
    """Read a machine from the ``proc`` and ``sys`` trees under ``root``."""
    arch = _MACHINES.get(machine.lower(), machine)
    cpuinfo = _read(root / "proc/cpuinfo")
    features = cpuinfo_features(cpuinfo)
    if arch == "aarch64":
        # An emulator may show the outer machine's cpuinfo; the auxiliary vector is its own.
        features = auxv_features(_read_bytes(root / "proc/self/auxv")) or features
    vendor = next(iter(_cpuinfo_values(cpuinfo, "vendor_id")), "")
    return Host(arch, vendor, features, num_cores, *_caches(root / "sys/devices/system/cpu/cpu0"))


def missing_here(profile: Profile) -> list[str]:
    """List what this machine lacks to execute code compiled for ``profile``; empty when nothing."""
    return missing(host(), profile.arch, profile.required_features)


def missing(machine: Host, arch: str, required: tuple[str, ...]) -> list[str]:
    """List what ``machine`` lacks; for another architecture, that architecture's name."""
    if machine.arch != arch:
        return [arch]
    return sorted(set(required) - machine.features)


def cpuinfo_features(text: str) -> frozenset[str]:
    """Features that every processor in a /proc/cpuinfo text has."""
    sets = [frozenset(line.split()) for line in _cpuinfo_values(text, "flags", "Features")]
    return frozenset.intersection(*sets) if sets else frozenset()


def cpu_name() -> str:
    """What the CPU calls itself, or its architecture where the kernel does not say."""
    names = _cpuinfo_values(_read(Path("/proc/cpuinfo")), "model name", "Model")
    return next(iter(names), platform.machine())


def auxv_features(data: bytes) -> frozenset[str]:
    """HWCAP names in the auxiliary vector of a 64-bit little-endian Arm process."""
    whole = len(data) // 16 * 16
    entries = dict(struct.iter_unpack("<QQ", data[:whole]))
    words = [entries.get(key, 0) for key in _AT_HWCAPS]
    return frozenset(f.name for f in KNOWN["aarch64"].values() if words[f.word] >> f.bit & 1)


def _cpuinfo_values(text: str, *keys: str) -> list[str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return [value.strip() for key, _, value in pairs if key.strip() in keys]


def _caches(cpu: Path) -> tuple[int, int, int]:
    """Sizes in bytes of the data or unified caches of levels 1 to 3."""
    sizes = {1: 0, 2: 0, 3: 0}
    for index in sorted(cpu.glob("cache/index*")):
        level, size = _read(index / "level").strip(), _read(index / "size").strip()
        if _read(index / "type").strip() == "Instruction" or level not in ("1", "2", "3"):
            continue
        digits, unit = (size[:-1], size[-1:]) if size[-1:] in _CACHE_UNITS else (size, "")
        if digits.isdecimal():
            sizes[int(level)] = int(digits) * _CACHE_UNITS.get(unit, 1)
    return sizes[1], sizes[2], sizes[3]


def _read(path: Path) -> str:
    return _read_bytes(path).decode("utf-8", "replace")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the caller's answer for "the kernel does not say"
