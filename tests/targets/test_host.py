import os
import platform
import struct
from pathlib import Path

import pytest

from gsb_tvm.targets import missing_here, resolve
from gsb_tvm.targets.host import (
    Host,
    auxv_features,
    cpuinfo_features,
    host,
    missing,
    permitted,
    read_host,
)
from gsb_tvm.targets.permission import ask_for_tiles, tile_features

# Two processors of a hybrid machine: only the first has avx512f.
HYBRID = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu sse sse2 avx2 avx512f
bugs\t\t: spectre_v1

processor\t: 1
vendor_id\t: GenuineIntel
flags\t\t: fpu sse sse2 avx2
"""
# Raspberry Pi 4: fp asimd evtstrm crc32 cpuid.
PI4_HWCAP = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 7 | 1 << 11
PI4_CPUINFO = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU part\t: 0xd08\n"


def auxv(**entries: int) -> bytes:
    numbers = {"pagesz": 6, "hwcap": 16, "hwcap2": 26}
    pairs = [(numbers[key], value) for key, value in entries.items()] + [(0, 0)]
    return b"".join(struct.pack("<QQ", *pair) for pair in pairs)


def machine(root: Path, cpuinfo: str = "", vector: bytes = b"", caches=()) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/self/auxv").write_bytes(vector)
    for index, (level, kind, size) in enumerate(caches):
        folder = root / f"sys/devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    return root


def test_cpuinfo_keeps_what_all_processors_have():
    assert cpuinfo_features(HYBRID) == {"fpu", "sse", "sse2", "avx2"}
    assert cpuinfo_features("") == frozenset()


def test_auxv_names_the_bits():
    assert auxv_features(auxv(pagesz=4096, hwcap=PI4_HWCAP)) == {
        "fp", "asimd", "evtstrm", "crc32", "cpuid",
    }  # fmt: skip
    # Bit numbers of asm/hwcap.h, spot checks at both ends of both words.
    assert auxv_features(auxv(hwcap=1 << 20 | 1 << 31)) == {"asimddp", "pacg"}
    assert auxv_features(auxv(hwcap2=1 << 1 | 1 << 13 | 1 << 34 | 1 << 43)) == {
        "sve2", "i8mm", "cssc", "mops",
    }  # fmt: skip
    assert auxv_features(auxv(hwcap2=1 << 45 | 1 << 50)) == {"sveb16b16", "faminmax"}


@pytest.mark.parametrize("cut", range(0, 48, 5))
def test_a_cut_auxv_is_read_as_far_as_it_goes(cut):
    whole = auxv(hwcap=PI4_HWCAP, hwcap2=0)
    assert auxv_features(whole[:cut]) == (
        {"fp", "asimd", "evtstrm", "crc32", "cpuid"} if cut >= 16 else frozenset()
    )


def test_reads_an_x86_machine(tmp_path):
    caches = [(1, "Data", "48K"), (1, "Instruction", "64K"), (2, "Unified", "2048K"),
              (3, "Unified", "105M")]  # fmt: skip
    got = read_host(machine(tmp_path, HYBRID, caches=caches), "x86_64", 8)
    assert got == Host(
        "x86_64", "GenuineIntel", frozenset({"fpu", "sse", "sse2", "avx2"}), 8,
        48 * 1024, 2048 * 1024, 105 * 1024**2,
    )  # fmt: skip


def test_reads_an_arm_machine_from_its_auxiliary_vector(tmp_path):
    vector = auxv(hwcap=PI4_HWCAP)
    got = read_host(machine(tmp_path, HYBRID, vector), "aarch64", 4)
    assert got.features == {"fp", "asimd", "evtstrm", "crc32", "cpuid"}
    assert (got.l1_bytes, got.l2_bytes, got.l3_bytes) == (0, 0, 0)


def test_falls_back_to_cpuinfo_where_there_is_no_auxiliary_vector(tmp_path):
    got = read_host(machine(tmp_path, PI4_CPUINFO), "arm64", 4)
    assert (got.arch, got.features) == ("aarch64", {"fp", "asimd", "evtstrm", "crc32", "cpuid"})


def test_a_machine_without_proc_has_no_features(tmp_path):
    assert read_host(tmp_path, "x86_64", 1) == Host("x86_64", "", frozenset(), 1, 0, 0, 0)


@pytest.mark.parametrize("size", ["", "K", "-1K", "big", "48 K"])
def test_an_odd_cache_size_counts_as_unknown(tmp_path, size):
    assert read_host(machine(tmp_path, caches=[(1, "Data", size)]), "x86_64", 1).l1_bytes == 0


def test_missing_names_features_or_the_architecture():
    pi = Host("aarch64", "", frozenset({"fp", "asimd"}), 4, 0, 0, 0)
    assert missing(pi, "aarch64", ("asimd", "fp")) == []
    assert missing(pi, "aarch64", ("asimd", "sve", "asimddp")) == ["asimddp", "sve"]
    assert missing(pi, "x86_64", ("sse2",)) == ["x86_64"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks an x86 machine")
def test_this_machine():
    flags = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    )
    assert host().features == set(flags.partition(":")[2].split())
    assert missing_here(resolve("llvm -mtriple=x86_64-linux-gnu")) == []
    assert missing_here(resolve("llvm -mcpu=cortex-a72")) == ["aarch64"]
    # No machine reports AVX10 by flag, so code for it is refused everywhere.
    assert "avx10_2" in missing_here(resolve("llvm -mcpu=diamondrapids"))
    assert os.sched_getaffinity(0)


def test_amx_that_linux_refuses_is_not_there() -> None:
    features = frozenset({"sse2", "amx_tile", "amx_int8", "amx_bf16"})
    cpu = Host("x86_64", "GenuineIntel", features, 1, 0, 0, 0)
    assert permitted(cpu, "") == cpu
    got = permitted(cpu, "Operation not permitted")
    assert (got.features, got.tiles_refused) == ({"sse2"}, "Operation not permitted")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a system call of x86-64")
def test_tiles_are_granted_only_where_the_cpu_has_them() -> None:
    """The answer of this machine's Linux."""
    cpu = cpuinfo_features(Path("/proc/cpuinfo").read_text())
    assert "amx_tile" in cpu or ask_for_tiles()
    assert bool(tile_features(host().features)) == ("amx_tile" in cpu and not ask_for_tiles())
