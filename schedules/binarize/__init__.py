"""Optional layer norm, shift, compare, pack: float rows to bit planes."""

from typing import Any

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.schedules.binarize import narrow, wide
from gsb_tvm.targets.profile import Profile

__all__ = ["kernel"]


def kernel(spec: Binarize, profile: Profile) -> Any:
    """PrimFunc of ``spec``: vectors of one word where a row has that many features, else scalars.

    Arguments are ``spec.inputs()``, then ``spec.outputs()``; all shapes are static.
    """
    if spec.rows.features < WORD_BITS:
        return narrow.kernel(spec)
    return wide.kernel(spec, profile)
