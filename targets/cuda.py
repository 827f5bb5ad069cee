"""Targets of kind cuda: the architecture of a GPU, and the CPU beside it."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import llvm
from gsb_tvm.targets.devices import device
from gsb_tvm.targets.features import BASELINE
from gsb_tvm.targets.gpus import GPUS
from gsb_tvm.targets.profile import Profile
from gsb_tvm.targets.spec import Request, unknown


def expand_tag(request: Request, config: Mapping[str, object]) -> Request:
    """The request that a tag of a GPU stands for.

    Raises
    ------
    TargetError
        The tag stands for another architecture than the request names.
    """
    arch = _without_letter(str(config.get("arch", "")))
    if request.arch and _without_letter(request.arch) != arch:
        raise TargetError(
            f'target "{request.text}": the tag is for {arch}, not for {request.arch}. '
            f"Leave out -arch, or write cuda -arch={request.arch}."
        )
    return replace(request, head="cuda", arch=arch)


def resolve_for(request: Request, label: str, host_arch_of: Callable[[], str]) -> Profile:
    """Profile of a GPU; ``label`` is the tag, if one was given, ``host_arch_of`` asks for the CPU.

    Raises
    ------
    TargetError
        There is no architecture, one that code is not generated for, or an option of CPUs.
    """
    text, arch = request.text, _without_letter(request.arch)
    if request.mcpu or request.mattr or request.num_cores:
        raise TargetError(
            f'target "{text}": -mcpu, -mattr and -num-cores are of CPUs. '
            "Name the GPU with -arch= alone, and another host than this machine with -mtriple=."
        )
    if not arch:
        raise TargetError(
            f'target "{text}": the architecture of the GPU is missing. Add for example '
            "-arch=sm_90 (H100, H200), -arch=sm_89 (RTX 4090, L4) or -arch=sm_80 (A100)."
        )
    if arch not in GPUS:
        raise unknown(text, "GPU architecture", arch, [f"cuda -arch={known}" for known in GPUS])
    host_arch = host_arch_of()
    cpu = llvm.GENERIC_CPU[host_arch]
    known = device(cpu)
    return Profile(
        name=f"{label} ({arch})" if label else arch,
        kind="cuda",
        mtriple=llvm.TRIPLES[host_arch],
        mcpu=cpu,
        mattr=(),
        features=BASELINE[host_arch],
        arch=host_arch,
        l1_bytes=known.l1_bytes,
        l2_bytes=known.l2_bytes,
        l3_bytes=known.l3_bytes,
        num_cores=known.num_cores,
        out_of_order=known.out_of_order,
        required_features=(),
        gpu=GPUS[arch],
    )


def _without_letter(arch: str) -> str:
    """The architecture without the letter of features that no later chip has: "sm_90a"."""
    return arch.rstrip("af")
