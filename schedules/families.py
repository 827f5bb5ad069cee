"""Which family makes the kernel of which spec."""

from collections.abc import Callable, Mapping
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
from gsb_tvm.schedules.attention_planes import kernel as attention_planes
from gsb_tvm.schedules.attention_value import kernel as attention_value
from gsb_tvm.schedules.batch_matmul import kernel as batch_matmul
from gsb_tvm.schedules.binarize import kernel as binarize
from gsb_tvm.schedules.dense import kernel as dense
from gsb_tvm.schedules.dense import method
from gsb_tvm.schedules.patches import kernel as patches
from gsb_tvm.schedules.value_planes import kernel as value_planes
from gsb_tvm.targets import Profile

_FAMILIES: Mapping[type, Callable[[Any, Profile], Any]] = {
    AttentionPlanes: attention_planes,
    AttentionValue: attention_value,
    BatchMatmul: batch_matmul,
    Binarize: binarize,
    Dense: dense,
    Patches: patches,
    ValuePlanes: value_planes,
}


def kernel(spec: Any, profile: Profile) -> Any:
    """PrimFunc of a packed operator: arguments are the spec's inputs, then its outputs."""
    return _FAMILIES[type(spec)](spec, profile)


def variant(spec: Any, profile: Profile) -> str:
    """How the kernel works, where its family has several ways: a word for its name, or nothing."""
    return method(spec, profile).name.lower() if isinstance(spec, Dense) else ""
