import platform
import random

import pytest

from gsb_tvm.targets import llvm, missing_here, resolve
from gsb_tvm.targets.features import LINUX_NAMES, emitted, linux_names
from gsb_tvm.targets.host import Host, host, permitted
from gsb_tvm.targets.native import native_cpu
from gsb_tvm.targets.resolution import resolve_for
from gsb_tvm.targets.spec import parse


def machine_like(arch, cpu, vendor="GenuineIntel", without=()):
    names = linux_names(arch, llvm.features(arch, cpu)) - set(without)
    return Host(arch, vendor, names, 8, 0, 0, 0)


def native(machine, text="native"):
    return resolve_for(parse(text), machine)


@pytest.mark.parametrize(
    ("arch", "cpu", "vendor"),
    [
        ("x86_64", "haswell", "GenuineIntel"),
        ("x86_64", "sapphirerapids", "GenuineIntel"),
        ("x86_64", "znver4", "AuthenticAMD"),
        ("x86_64", "znver5", "AuthenticAMD"),
        ("aarch64", "cortex-a72", ""),
        ("aarch64", "neoverse-n1", ""),
        ("aarch64", "neoverse-v2", ""),
    ],
)
def test_uses_all_and_only_what_the_machine_has(arch, cpu, vendor):
    machine = machine_like(arch, cpu, vendor)
    got = native(machine)
    assert set(got.required_features) == machine.features
    assert emitted(arch, got.features) == emitted(arch, llvm.features(arch, cpu))


def test_a_guess_with_fewer_features_is_overruled():
    cpu, mattr = native_cpu(machine_like("x86_64", "sapphirerapids"), "rocketlake")
    assert cpu in ("sapphirerapids", "emeraldrapids")
    assert {"+amx-int8", "+avx512fp16"} <= set(mattr)


def test_a_guess_that_fits_decides_among_equals():
    machine = machine_like("aarch64", "cortex-a76")
    assert native_cpu(machine, "cortex-a76")[0] == "cortex-a76"
    assert native_cpu(machine, "neoverse-n1")[0] == "neoverse-n1"


def test_without_a_fitting_guess_the_smallest_cpu_with_a_device_file_wins():
    assert native_cpu(machine_like("aarch64", "cortex-a72"), "znver5")[0] == "cortex-a53"


def test_a_guess_whose_features_a_hypervisor_hides_is_overruled():
    machine = machine_like("x86_64", "sapphirerapids", without={"amx_int8", "amx_tile"})
    got = native(machine)
    assert got.mcpu != "sapphirerapids"
    assert got.has_vpopcntdq
    assert "amx-int8" not in got.features


def test_native_does_without_amx_that_linux_refuses():
    machine = machine_like("x86_64", "sapphirerapids")
    assert native(machine).has_amx_int8
    got = native(permitted(machine, "Operation not permitted"))
    assert not got.has_amx_int8
    assert not any(name.startswith("amx") for name in got.required_features)
    assert set(got.required_features) == machine.features - {"amx_int8", "amx_tile"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("llvm -mcpu=sapphirerapids", True),
        ("llvm -mcpu=emeraldrapids", True),
        ("llvm -mcpu=graniterapids", True),
        ("llvm -mcpu=sapphirerapids -mattr=-amx-int8,-amx-tile", False),
        ("llvm -mcpu=sapphirerapids -mattr=-gfni", False),
        ("llvm -mcpu=znver5", False),
        ("llvm -mcpu=znver5 -mattr=+amx-int8", True),
        ("llvm -mcpu=haswell -mattr=+amx-int8", False),
        ("llvm -mcpu=cortex-a72", False),
    ],
)
def test_which_targets_have_tile_products(target, expected):
    assert resolve(target).has_amx_int8 == expected


def test_a_hole_in_the_middle_of_a_chain_is_honoured():
    machine = machine_like("x86_64", "skylake-avx512", without={"avx2"})
    got = native(machine)
    assert not got.has_avx2
    assert not got.has_avx512
    assert set(got.required_features) <= machine.features


def test_the_users_features_come_last():
    machine = machine_like("x86_64", "icelake-server")
    got = native(machine, "native -mattr=-avx512f -num-cores=1")
    assert (got.vector_bits, got.num_cores, got.mattr[-1]) == (256, 1, "-avx512f")
    assert got.name == f"native ({got.mcpu}) -avx512f"


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_never_more_than_the_machine_has(arch):
    """300 machines with arbitrary holes, possible or not."""
    rng = random.Random(5)
    everything = sorted({name for names in LINUX_NAMES[arch].values() for name in names})
    base = {"x86_64": {"cmov", "sse", "sse2"}, "aarch64": {"fp", "asimd"}}[arch]
    for _ in range(150):
        share = rng.random()
        names = base | {name for name in everything if rng.random() < share}
        machine = Host(arch, rng.choice(["", "AuthenticAMD"]), frozenset(names), 1, 0, 0, 0)
        got = native(machine)
        assert set(got.required_features) <= machine.features
        assert got.mcpu in llvm.cpus(arch)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks an x86 machine")
@pytest.mark.parametrize("spec", ["native", "llvm -mcpu=native"])
def test_this_machine(spec, capfd):
    got = resolve(spec)
    flags = host().features
    assert missing_here(got) == []
    assert got.name == f"native ({got.mcpu})"
    assert got.has_avx2 == ("avx2" in flags)
    assert got.has_vpopcntdq == ({"avx512_vpopcntdq", "avx512bw", "avx512vl"} <= flags)
    assert ("amx-int8" in got.features) == ("amx_int8" in flags)
    assert (got.l1_bytes, got.num_cores) >= (4096, 1)
    assert capfd.readouterr() == ("", "")
