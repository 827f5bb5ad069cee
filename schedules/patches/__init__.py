"""Patch embedding: an image to tokens, lanes along the columns, nothing transposed."""

from typing import Any

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.patches import broadcasts, elements
from gsb_tvm.targets import Profile

__all__ = ["kernel"]


def kernel(spec: Patches, profile: Profile) -> Any:
    """PrimFunc of ``spec``: its inputs, then its outputs."""
    return (elements if profile.has_neon else broadcasts).kernel(spec, profile)
