"""Tags of boards: TVM's, with what they leave out, and ours."""

import pytest

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import boards, llvm, resolve
from gsb_tvm.targets.devices import available

ARM64 = (
    "arm/mate10 arm/pixel2 arm/rasp4b64 arm/rk3399 arm/thunderx arm/ultra96 "
    "raspberry-pi/3b-aarch64 raspberry-pi/4b-aarch64 raspberry-pi/5-aarch64"
).split()


def test_these_are_all_64_bit_arm_tags():
    found = []
    for tag in boards.tags():
        try:
            found += [tag] if resolve(tag).arch == "aarch64" else []
        except TargetError:
            continue
    assert found == ARM64


@pytest.mark.parametrize("tag", ARM64)
def test_an_arm_tag_names_a_device_with_caches_and_cores(tag):
    got = resolve(tag)
    assert got.mcpu in available()
    assert (got.l1_bytes, got.l2_bytes) >= (32 << 10, 512 << 10)
    assert got.num_cores > 1
    # The small cores of a chip have no more than these.
    assert set(got.required_features) <= {"asimd", "fp"} or tag in (
        "arm/thunderx",  # TVM's tag asks for +lse
        "raspberry-pi/5-aarch64",  # one kind of core
    )


@pytest.mark.parametrize("tag", ARM64)
def test_llvm_knows_every_feature_of_an_arm_tag(tag):
    wanted = boards.config(tag).get("mattr", [])
    assert {name[1:] for name in wanted} <= llvm.known_features("aarch64")


@pytest.mark.parametrize(
    ("tag", "cpu", "cores"),
    [
        ("raspberry-pi/3b-aarch64", "cortex-a53", 4),
        ("raspberry-pi/4b-aarch64", "cortex-a72", 4),
        ("raspberry-pi/5-aarch64", "cortex-a76", 4),
        ("arm/mate10", "cortex-a73", 4),
        ("arm/rk3399", "cortex-a72", 2),
        ("arm/ultra96", "cortex-a53", 4),
        ("arm/thunderx", "thunderxt88", 48),
    ],
)
def test_boards(tag, cpu, cores):
    got = resolve(tag)
    assert (got.mcpu, got.num_cores) == (cpu, cores)


def test_a_tag_of_tvm_keeps_what_it_says():
    for tag in set(boards.KNOWN) & set(llvm.tags()):
        theirs = llvm.tag_config(tag)
        assert not boards.KNOWN[tag].keys() & theirs.keys()
        assert boards.config(tag)["mtriple"] == theirs["mtriple"]
