"""Optional layer norm, shift, compare, pack: float rows to bit planes."""

from typing import Any

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.schedules.binarize import estimated, narrow, wide
from gsb_tvm.schedules.binarize.estimates import serves
from gsb_tvm.targets.profile import Profile

__all__ = ["kernel"]


def kernel(spec: Binarize, profile: Profile) -> Any:
    """PrimFunc of ``spec``: scalars for rows of less than a word, else vectors of a word.

    Arguments are ``spec.inputs()``, then ``spec.outputs()``; all shapes are static.
    """
    if spec.rows.features < WORD_BITS:
        return narrow.kernel(spec)
    if serves(spec, profile):
        return estimated.kernel(spec, profile)
    return wide.kernel(spec, profile)
