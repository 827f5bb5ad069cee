"""Optional layer norm, shift, compare, pack: float rows to bit planes."""

from typing import Any

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.schedules.binarize import estimated, narrow, wide
from gsb_tvm.schedules.binarize.space import By, Parameters, rule, space
from gsb_tvm.targets.profile import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]


def kernel(spec: Binarize, profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``: scalars for rows of less than a word, else vectors of a word.

    Arguments are ``spec.inputs()``, then ``spec.outputs()``; all shapes are static.
    """
    if spec.rows.features < WORD_BITS:
        return narrow.kernel(spec)
    if parameters.by is By.ESTIMATES:
        return estimated.kernel(spec, profile, parameters)
    return wide.kernel(spec, profile, parameters)
