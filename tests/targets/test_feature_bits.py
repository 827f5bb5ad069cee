"""The places of features; what a machine says there is compared in tests/cpp/test_cpu.py."""

from dataclasses import astuple

import pytest

from gsb_tvm.targets import llvm, resolve
from gsb_tvm.targets.feature_bits import KNOWN, feature_bits
from gsb_tvm.targets.features import BASELINE, LINUX_NAMES

AVX, AVX512, AMX, APX = 0x6, 0xE6, 0x60000, 0x80000


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_name_that_an_artefact_may_need_has_a_place(arch):
    names = {name for linux in LINUX_NAMES[arch].values() for name in linux}
    assert names <= KNOWN[arch].keys()
    if arch == "x86_64":
        assert names == KNOWN[arch].keys()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_no_two_features_share_a_place(arch):
    places = {(f.word, f.bit) for f in KNOWN[arch].values()}
    assert len(places) == len(KNOWN[arch])
    limit = {"x86_64": 32, "aarch64": 64}[arch]
    assert all(0 <= f.bit < limit for f in KNOWN[arch].values())
    assert all(name == f.name for name, f in KNOWN[arch].items())


@pytest.mark.parametrize(
    ("arch", "name", "place"),
    [
        # Linux, cpufeatures.h: (word * 32 + bit)
        ("x86_64", "sse2", (0, 26, 0)),
        ("x86_64", "pni", (4, 0, 0)),
        ("x86_64", "popcnt", (4, 23, 0)),
        ("x86_64", "abm", (6, 5, 0)),
        ("x86_64", "bmi2", (9, 8, 0)),
        ("x86_64", "avx2", (9, 5, AVX)),
        ("x86_64", "avx512vl", (9, 31, AVX512)),
        ("x86_64", "avx_vnni", (12, 4, AVX)),
        ("x86_64", "avx512_vpopcntdq", (16, 14, AVX512)),
        ("x86_64", "amx_int8", (18, 25, AMX)),
        # Intel 319433 and 355828: leaf 7, subleaf 1, EDX
        ("x86_64", "avx_vnni_int16", (64, 10, AVX)),
        ("x86_64", "apx", (64, 21, APX)),
        ("x86_64", "avx10_2", (65, 2, AVX512)),
        # Linux, hwcap.h of arm64
        ("aarch64", "asimd", (0, 1, 0)),
        ("aarch64", "asimddp", (0, 20, 0)),
        ("aarch64", "i8mm", (1, 13, 0)),
        ("aarch64", "faminmax", (1, 50, 0)),
    ],
)
def test_places(arch, name, place):
    assert astuple(*feature_bits(arch, [name])) == (name, *place)


def test_each_once_and_sorted_by_name():
    got = feature_bits("x86_64", ["sse2", "avx2", "sse2", "abm"])
    assert [f.name for f in got] == ["abm", "avx2", "sse2"]
    assert feature_bits("aarch64", []) == ()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_what_code_for_any_cpu_needs_has_a_place(arch):
    for cpu in llvm.cpus_64bit(arch):
        needed = resolve(f"llvm -mtriple={llvm.TRIPLES[arch]} -mcpu={cpu}").required_features
        assert tuple(f.name for f in feature_bits(arch, needed)) == needed


def test_every_vector_wider_than_sse_asks_for_its_state():
    for name, feature in KNOWN["x86_64"].items():
        if name.startswith(("avx512", "avx10")):
            assert feature.xcr0 == AVX512
        elif name.startswith("avx"):
            assert feature.xcr0 == AVX


def test_the_64_bit_convention_needs_no_more_than_every_machine_saves():
    names = {n for f in BASELINE["x86_64"] for n in LINUX_NAMES["x86_64"].get(f, ())}
    assert {f.xcr0 for f in feature_bits("x86_64", names)} == {0}
