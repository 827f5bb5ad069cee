"""Machine code of every family for every architecture: what it holds, and what it takes.

The operators of DeiT-Small for one image and for many, and small awkward ones. What each function
takes stands in pytest's summary.
"""

from collections import Counter
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Dense,
    Patches,
    ValuePlanes,
)
from gsb_tvm.runtime.cuda.launches import Kernels, lower
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.schedules import families
from gsb_tvm.targets import resolve
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES
from tests.gpu.cases import awkward, deit_small
from tests.gpu.widening import times
from tests.schedules.cuda.budgets import PROPERTY, Budget
from tests.schedules.cuda.kernels import ARCHS, TENSOR_ARCHS
from tests.schedules.cuda.sass import instructions_of

SMALL = (
    *("dense-masked", "dense-bits", "binarize", "batch-matmul", "attention-planes"),
    *("attention-value", "value-planes", "patches"),
)
GROUPS: Mapping[str, Mapping[str, Any]] = {
    "awkward": {name: awkward()[name] for name in SMALL},
    "batch-1": deit_small(),
    "batch-64": {name: times(spec, 64) for name, spec in deit_small().items()},
}
Chosen = tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]


def chosen(group: str, arch: str) -> Chosen:
    """What the rules of an architecture choose, by the kernels' names."""
    profile = resolve(f"cuda -arch={arch}")
    rules = {name: families.rule(spec, profile) for name, spec in GROUPS[group].items()}
    return tuple((name, tuple(sorted(choice.items()))) for name, choice in rules.items())


@cache
def lowered(group: str, choices: Chosen, arch: str = "sm_90") -> Kernels:
    """Source of a group; but for choices it is the same for all architectures."""
    profile = resolve(f"cuda -arch={arch}")
    functions = {
        name.replace("-", "_"): families.kernel(GROUPS[group][name], profile, dict(choice))
        for name, choice in choices
    }
    return lower(functions, profile)


def check_dense(found: Counter[str], arch: str) -> None:
    check_batch_matmul(found, arch)
    assert bool(found["LDGSTS"]) == (arch != "sm_75"), "copies are asynchronous from sm_80 on"


def check_batch_matmul(found: Counter[str], arch: str) -> None:
    assert bool(found["BMMA"]) == (arch in TENSOR_ARCHS)
    assert bool(found["IMMA"]) == (arch not in TENSOR_ARCHS)


def check_attention_planes(found: Counter[str], arch: str) -> None:
    assert bool(found["BMMA"]) == (arch in TENSOR_ARCHS)


def check_attention_value(found: Counter[str], arch: str) -> None:
    assert bool(found["BMMA"]) == (arch in TENSOR_ARCHS)
    assert bool(found["POPC"]) != (arch in TENSOR_ARCHS)


def check_ballots(found: Counter[str], _arch: str) -> None:
    assert found["VOTE"] + found["VOTEU"]


def check_patches(found: Counter[str], _arch: str) -> None:
    assert found["FFMA"]
    assert not found["HMMA"], "products of fewer digits"


CHECKS = {
    Dense: check_dense,
    BatchMatmul: check_batch_matmul,
    AttentionPlanes: check_attention_planes,
    AttentionValue: check_attention_value,
    Binarize: check_ballots,
    ValuePlanes: check_ballots,
    Patches: check_patches,
}


# The quick run compiles the awkward ones for every architecture and DeiT-Small's for these: a group
# takes NVIDIA's compiler a quarter of a minute.
QUICK = {"awkward": ARCHS, "batch-1": ("sm_90",), "batch-64": ("sm_90",)}
CASES = [
    pytest.param(group, arch, marks=[pytest.mark.slow] * (arch not in QUICK[group]))
    for group in GROUPS
    for arch in ARCHS
]


@pytest.mark.parametrize(("group", "arch"), CASES)
def test_by_rule(group, arch, record_property):
    kernels = lowered(group, chosen(group, arch))
    code = compile_source(kernels.source, arch)
    found = instructions_of(code.cubin)
    for name, spec in GROUPS[group].items():
        kernel = kernels.kernels[name.replace("-", "_")]
        functions = [launch.function for launch in kernel.launches]
        for number, function in enumerate(functions):
            taken = code.resources[function]
            budget = Budget(group, f"{name}.{number}", arch, taken.registers, taken.shared_bytes)
            record_property(PROPERTY, budget.row())
            assert taken.spilled_bytes == 0, f"{name} on {arch}: {taken}"
            assert taken.shared_bytes <= STATIC_SHARED_BYTES, f"{name} on {arch}: {taken}"
        total = sum((found[function] for function in functions), Counter())
        CHECKS[type(spec)](total, arch)


def test_source_depends_on_choices_alone():
    choices = chosen("awkward", "sm_90")
    here, there = (lowered("awkward", choices, arch) for arch in ("sm_75", "sm_90"))
    assert here == there
