"""Constants of a dense layer in other column tiles."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gsb_tvm.dialect.bits import retile_weight
from gsb_tvm.dialect.specs import Tensor
from gsb_tvm.passes.rewriting import Expr, constant, literal

Array = npt.NDArray[Any]


def laid_out(args: Sequence[Expr], before: Any, after: Any) -> list[Expr] | None:
    """Arguments of ``before`` as ``after`` wants them; None where one of them is no constant.

    The specs differ at most in their column tiles.
    """
    found = []
    for arg, given, wanted in zip(args, before.inputs(), after.inputs(), strict=True):
        if given == wanted:
            found.append(arg)
            continue
        values = constant(arg)
        if values is None:
            return None
        found.append(literal(_laid_out(values, wanted, before.computed_columns)))
    return found


def _laid_out(values: Array, wanted: Tensor, columns: int) -> Array:
    """A packed weight, or what there is one of for each column; flips are a bit each."""
    name, shape, dtype = wanted
    if len(shape) == 3:
        return retile_weight(values, columns=columns, column_tile=shape[2])
    # Thresholds of padding columns are empty sets.
    fill = np.iinfo(dtype).max if name.endswith("lo") else 0
    out = np.full(shape, fill, dtype)
    count = min(len(values), len(out))
    out[:count] = values[:count]
    return out
