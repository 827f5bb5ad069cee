import pytest
from tvm.target import Target

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import resolve
from gsb_tvm.targets.gpus import GPUS


@pytest.mark.parametrize("arch", GPUS)
def test_an_architecture_is_a_profile(arch):
    profile = resolve(f"cuda -arch={arch}")
    assert profile.gpu is GPUS[arch]
    assert profile.name == arch
    target = profile.tvm_target()
    assert str(target.kind.name) == "cuda"
    assert target.attrs["arch"] == arch
    assert isinstance(target.host, Target)


def test_what_is_written_can_be_read():
    profile = resolve("cuda -arch=sm_86 -mtriple=aarch64-linux-gnu")
    assert resolve(profile.target_string) == profile
    assert profile.arch == "aarch64"
    assert profile.required_features == ()


@pytest.mark.parametrize(
    "spec", ["nvidia/nvidia-h100", "cuda -arch=sm_90a", {"kind": "cuda", "arch": "sm_90"}]
)
def test_other_ways_to_say_it(spec):
    assert resolve(spec).gpu is GPUS["sm_90"]


def test_capability():
    assert GPUS["sm_90"].capability == (9, 0)
    assert GPUS["sm_120"].capability == (12, 0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "cuda",
            'target "cuda": the architecture of the GPU is missing. Add for example '
            "-arch=sm_90 (H100, H200), -arch=sm_89 (RTX 4090, L4) or -arch=sm_80 (A100).",
        ),
        (
            "cuda -arch=sm_81",
            'target "cuda -arch=sm_81": unknown GPU architecture "sm_81". '
            'Nearest names: "cuda -arch=sm_80", "cuda -arch=sm_86", "cuda -arch=sm_87".',
        ),
        (
            "cuda -arch=sm_90 -mcpu=haswell",
            'target "cuda -arch=sm_90 -mcpu=haswell": -mcpu, -mattr and -num-cores are of CPUs. '
            "Name the GPU with -arch= alone, and another host than this machine with -mtriple=.",
        ),
        (
            "llvm -arch=sm_90",
            'target "llvm -arch=sm_90": -arch names a GPU, for kind cuda. Name a CPU with -mcpu=.',
        ),
        (
            "nvidia/nvidia-h100 -arch=sm_80",
            'target "nvidia/nvidia-h100 -arch=sm_80": the tag is for sm_90, not for sm_80. '
            "Leave out -arch, or write cuda -arch=sm_80.",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(spec, message):
    with pytest.raises(TargetError) as raised:
        resolve(spec)
    assert str(raised.value) == message
