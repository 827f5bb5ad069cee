"""32-bit Arm is refused, however it is asked for, in a sentence that names the way out."""

import pytest

from gsb_tvm.dialect.errors import ExitCode, TargetError
from gsb_tvm.targets import llvm, resolve
from gsb_tvm.targets.arm32 import is_family
from gsb_tvm.targets.host import Host
from gsb_tvm.targets.resolution import resolve_for
from gsb_tvm.targets.spec import parse

ANY_BOARD = (
    "Raspberry Pi 3, 4 and 5 run a 64-bit system: install one and write "
    '"llvm -mcpu=cortex-a53", "llvm -mcpu=cortex-a72" or "llvm -mcpu=cortex-a76".'
)
SAME_CPU = (
    '"cortex-a72" also runs 64-bit code: install a 64-bit system and write "llvm -mcpu=cortex-a72".'
)
ARMV7L = "armv7l-linux-gnueabihf"


@pytest.mark.parametrize(
    ("spec", "name", "way"),
    [
        ("llvm -mcpu=cortex-a7", "cortex-a7", ANY_BOARD),
        ("llvm -mcpu=cortex-a9", "cortex-a9", ANY_BOARD),
        ("llvm -mcpu=arm1176jzf-s", "arm1176jzf-s", ANY_BOARD),
        ("llvm -mcpu=armv7", "armv7", ANY_BOARD),
        ("llvm -mcpu=armv7-a", "armv7-a", ANY_BOARD),
        ("llvm -mcpu=armv7l", "armv7l", ANY_BOARD),
        ("llvm -mcpu=cortex-a7 -mtriple=aarch64-linux-gnu", "cortex-a7", ANY_BOARD),
        ("llvm -mcpu=cortex-a7 -mtriple=arm-linux-gnueabihf", "arm-linux-gnueabihf", ANY_BOARD),
        ("llvm -mtriple=arm-linux-gnueabihf", "arm-linux-gnueabihf", ANY_BOARD),
        ("llvm -mtriple=armv6-linux-gnueabihf", "armv6-linux-gnueabihf", ANY_BOARD),
        ("llvm -mtriple=armv7l", "armv7l", ANY_BOARD),
        ("llvm -mtriple=thumbv7-linux-android", "thumbv7-linux-android", ANY_BOARD),
        (f"llvm -mcpu=native -mtriple={ARMV7L}", ARMV7L, ANY_BOARD),
        (f"llvm -mcpu=cortex-a72 -mtriple={ARMV7L}", ARMV7L, SAME_CPU),
        ("cortex-a7", "cortex-a7", ANY_BOARD),
        ("armv7", "armv7", ANY_BOARD),
        ("armhf", "armhf", ANY_BOARD),
        (ARMV7L, ARMV7L, ANY_BOARD),
        ("arm/beagleai", "armv7a-linux-gnueabihf", ANY_BOARD),
        ("arm/pynq", "armv7a-linux-eabi", ANY_BOARD),
        ("arm/rasp3b", ARMV7L, ANY_BOARD),
        ("arm/rasp4b", "armv8l-linux-gnueabihf", SAME_CPU),
        ("arm/stm32mp1", "armv7a-linux-gnueabihf", ANY_BOARD),
    ],
)
def test_is_refused(spec, name, way, capfd):
    with pytest.raises(TargetError) as caught:
        resolve(spec)
    said = f'"{name}" is 32-bit Arm; code is generated for 64-bit Arm only. {way}'
    assert str(caught.value) == f'target "{spec}": {said}'
    assert caught.value.exit_code == ExitCode.USAGE
    assert capfd.readouterr() == ("", "")


def test_a_mapping_is_refused_too():
    with pytest.raises(TargetError, match="is 32-bit Arm"):
        resolve({"kind": "llvm", "mcpu": "cortex-a72", "mtriple": ARMV7L, "mattr": ["+neon"]})


@pytest.mark.parametrize("spec", ["native", "llvm"])
@pytest.mark.parametrize("arch", ["armv6l", "armv7l", "armv8l"])
def test_a_32_bit_machine_cannot_be_compiled_for(spec, arch):
    pi = Host(arch, "", frozenset({"neon", "vfpv4"}), 4, 0, 0, 0)
    with pytest.raises(TargetError, match=f'"{arch}" is 32-bit Arm; .*install one and write'):
        resolve_for(parse(spec), pi)


@pytest.mark.parametrize("arch", ["armv6l", "armv7l", "armv8l"])
def test_but_it_can_compile_for_others(arch):
    pi = Host(arch, "", frozenset(), 4, 0, 0, 0)
    assert resolve_for(parse("llvm -mcpu=cortex-a72"), pi).arch == "aarch64"


@pytest.mark.parametrize("name", ["arm64", "arm64e", "armv8-a", "armv9-a", "armada", "aarch64"])
def test_a_64_bit_name_is_no_32_bit_family(name):
    assert not is_family(name)


def test_no_64_bit_cpu_is_refused_as_32_bit():
    for cpu in llvm.cpus("aarch64"):
        assert resolve(f"llvm -mtriple=aarch64-linux-gnu -mcpu={cpu}").arch == "aarch64"
