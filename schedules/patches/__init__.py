"""Patch embedding: an image to tokens, lanes along the columns, nothing transposed."""

from typing import Any

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.patches import broadcasts, elements
from gsb_tvm.schedules.patches.space import By, Parameters, rule, space
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]


def kernel(spec: Patches, _profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``: its inputs, then its outputs."""
    way = elements if parameters.by is By.ELEMENTS else broadcasts
    return way.kernel(spec, parameters)
