"""Which family makes the kernel of which spec."""

from collections.abc import Callable, Mapping
from typing import Any

from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Dense,
    ValuePlanes,
)
from gsb_tvm.schedules import (
    attention_planes,
    attention_value,
    batch_matmul,
    binarize,
    dense,
    value_planes,
)
from gsb_tvm.targets import Profile

_FAMILIES: Mapping[type, Callable[[Any, Profile], Any]] = {
    AttentionPlanes: attention_planes.kernel,
    AttentionValue: attention_value.kernel,
    BatchMatmul: batch_matmul.kernel,
    Binarize: binarize.kernel,
    Dense: dense.kernel,
    ValuePlanes: value_planes.kernel,
}


def kernel(spec: Any, profile: Profile) -> Any:
    """PrimFunc of a packed operator: arguments are the spec's inputs, then its outputs."""
    return _FAMILIES[type(spec)](spec, profile)
