import pytest

from gsb_tvm.targets import llvm
from gsb_tvm.targets.features import BASELINE, LINUX_NAMES, emitted, linux_names, present


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_name_of_the_tables_is_llvms(arch):
    assert LINUX_NAMES[arch].keys() <= llvm.known_features(arch)
    assert BASELINE[arch] <= llvm.known_features(arch)


def test_linux_names():
    assert linux_names("x86_64", {"sse3", "lzcnt", "bmi", "aes", "xsaves"}) == {
        "pni", "abm", "bmi1",
    }  # fmt: skip
    assert linux_names("aarch64", {"fullfp16", "aes"}) == {"fphp", "asimdhp"}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_there_and_back(arch):
    for cpu in llvm.cpus(arch):
        mine = emitted(arch, llvm.features(arch, cpu))
        assert mine <= present(arch, linux_names(arch, mine))


def test_a_feature_of_two_names_needs_both():
    assert "fullfp16" not in present("aarch64", frozenset({"fphp"}))
    assert "fullfp16" in present("aarch64", frozenset({"fphp", "asimdhp"}))
