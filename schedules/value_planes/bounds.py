"""What a value must exceed, or stay below, to be in a mask."""

from dataclasses import dataclass

import numpy as np
from tvm import tirx

from gsb_tvm.dialect.specs import ValuePlanes
from gsb_tvm.schedules import vector as v


@dataclass(frozen=True)
class Bounds:
    """Scalars of pass two: per ratio what a value must exceed, or stay below."""

    above: list[v.Expr]
    below: list[v.Expr]


def bounds_of(spec: ValuePlanes, high: v.Expr, low: v.Expr) -> Bounds:
    """Each ratio times the maximum, and the minimum, of everything."""
    ratios = [tirx.const(float(np.float32(ratio)), "float32") for ratio in spec.ratios]
    return Bounds([v.bind(r * high) for r in ratios], [v.bind(r * low) for r in ratios])
