"""Which family makes the kernel of which spec, and what may be chosen of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Dense,
    Patches,
    ValuePlanes,
)
from gsb_tvm.schedules import (
    attention_planes,
    attention_value,
    batch_matmul,
    binarize,
    dense,
    patches,
    value_planes,
)
from gsb_tvm.schedules.attention_planes import cuda as attention_planes_cuda
from gsb_tvm.schedules.attention_value import cuda as attention_value_cuda
from gsb_tvm.schedules.batch_matmul import cuda as batch_matmul_cuda
from gsb_tvm.schedules.binarize import cuda as binarize_cuda
from gsb_tvm.schedules.choices import Choice, Value, as_choice, as_parameters, distinct
from gsb_tvm.schedules.dense import cuda as dense_cuda
from gsb_tvm.schedules.patches import cuda as patches_cuda
from gsb_tvm.schedules.value_planes import cuda as value_planes_cuda
from gsb_tvm.targets import Profile


@dataclass(frozen=True)
class Family:
    """A family of kernels.

    Attributes
    ----------
    kernel
        PrimFunc of a spec for a profile, with the parameters given.
    parameters
        Class of the parameters: a frozen dataclass of numbers, words and enumerations of words.
    rule
        Parameters by the rule: a pure function of spec and profile.
    space
        All parameters that are worth trying; the rule's may be among them.
    arranged
        The spec that a kernel with some parameters is for, where those change the layout of
        constants.
    version
        Of the schedules: one more wherever the same parameters give another kernel, so that what
        was measured before counts no more.
    """

    kernel: Callable[[Any, Profile, Any], Any]
    parameters: type
    rule: Callable[[Any, Profile], Any]
    space: Callable[[Any, Profile], Iterable[Any]]
    arranged: Callable[[Any, Any], Any] = lambda spec, _parameters: spec
    version: int = 1


_ON_CPU: Mapping[type, Family] = {
    AttentionPlanes: Family(
        attention_planes.kernel,
        attention_planes.Parameters,
        attention_planes.rule,
        attention_planes.space,
    ),
    AttentionValue: Family(
        attention_value.kernel,
        attention_value.Parameters,
        attention_value.rule,
        attention_value.space,
    ),
    BatchMatmul: Family(
        batch_matmul.kernel, batch_matmul.Parameters, batch_matmul.rule, batch_matmul.space
    ),
    Binarize: Family(binarize.kernel, binarize.Parameters, binarize.rule, binarize.space),
    Dense: Family(dense.kernel, dense.Parameters, dense.rule, dense.space, dense.arranged),
    Patches: Family(patches.kernel, patches.Parameters, patches.rule, patches.space),
    ValuePlanes: Family(
        value_planes.kernel, value_planes.Parameters, value_planes.rule, value_planes.space
    ),
}


def _of(family: ModuleType) -> Family:
    """The family that a module writes for GPUs."""
    return Family(family.kernel, family.Parameters, family.rule, family.space)


_ON_GPU: Mapping[type, Family] = {
    AttentionPlanes: _of(attention_planes_cuda),
    AttentionValue: _of(attention_value_cuda),
    BatchMatmul: _of(batch_matmul_cuda),
    Binarize: _of(binarize_cuda),
    Dense: _of(dense_cuda),
    Patches: _of(patches_cuda),
    ValuePlanes: _of(value_planes_cuda),
}


def _family(spec: Any, profile: Profile) -> Family:
    return (_ON_CPU if profile.gpu is None else _ON_GPU)[type(spec)]


def rule(spec: Any, profile: Profile) -> dict[str, Value]:
    """The choice by rule."""
    return as_choice(_family(spec, profile).rule(spec, profile))


def space(spec: Any, profile: Profile) -> tuple[dict[str, Value], ...]:
    """All choices that are worth trying, each once, the rule's first."""
    family = _family(spec, profile)
    return distinct(family.rule(spec, profile), family.space(spec, profile))


def version(spec: Any, profile: Profile) -> int:
    """Version of the schedules of the spec's family."""
    return _family(spec, profile).version


def arranged(spec: Any, profile: Profile, choice: Choice | None) -> Any:
    """The spec that the kernel of a choice is for: constants may be laid out in another way.

    Nothing else differs. Without a choice the spec itself.
    """
    if choice is None:
        return spec
    family = _family(spec, profile)
    return family.arranged(spec, as_parameters(choice, family.parameters))


def kernel(spec: Any, profile: Profile, choice: Choice | None = None) -> Any:
    """PrimFunc of a packed operator: arguments are the spec's inputs, then its outputs.

    ``choice`` is one of :func:`space`, and inputs are then those of :func:`arranged`; without it
    the rule's.
    """
    family = _family(spec, profile)
    chosen = rule(spec, profile) if choice is None else choice
    parameters: Any = as_parameters(chosen, family.parameters)
    return family.kernel(arranged(spec, profile, choice), profile, parameters)


def variant(spec: Any, profile: Profile, choice: Choice | None = None) -> str:
    """How the kernel works, where its family has several ways: a word for its name, or nothing."""
    chosen = rule(spec, profile) if choice is None else choice
    return str(chosen.get("method", ""))
