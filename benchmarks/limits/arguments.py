"""Arguments for kernels: the network's constants, and data with the statistics of a trained one."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gsb_tvm.dialect.bits import Rows, pack_rows
from gsb_tvm.passes.rewriting import constant

Array = np.ndarray

# Share of ones in nested masks, base first: of attention 7 to 15 % (gsb_tvm/models/fill.py), of
# the rest and of the extremes of values at most 1 % in trained networks, usually far less.
_ATTENTION_DENSITIES = (0.1, 0.004, 0.002)
_VALUE_DENSITIES = (0.004, 0.002)


def for_spec(spec: Any, given: Sequence[Any], rng: np.random.Generator) -> Iterator[Array]:
    """Inputs of a packed operator's kernel, then room for its outputs."""
    for (name, shape, dtype), argument in zip(spec.inputs(), given, strict=True):
        known = constant(argument)
        yield _drawn(spec, name, shape, dtype, rng) if known is None else known
    for _, shape, dtype in spec.outputs():
        yield np.empty(shape, dtype)


def _drawn(
    spec: Any, name: str, shape: Sequence[int], dtype: str, rng: np.random.Generator
) -> Array:
    if dtype == "float32":
        return rng.standard_normal(shape, dtype=np.float32)
    if dtype == "int32":
        return np.zeros(shape, np.int32)  # the flag that says whether a plane holds zeros
    rows = rows_of(spec, name)
    extent = (rows.batch, rows.tokens, rows.features)
    if name.endswith("_nonzero"):
        return pack_rows(np.ones(extent, bool), rows)
    uniform = rng.random(extent)
    if not name.endswith("_masks"):
        return pack_rows(uniform < 0.5, rows)
    densities = _ATTENTION_DENSITIES if name.startswith("p") else _VALUE_DENSITIES
    return np.stack([pack_rows(uniform < density, rows) for density in densities[: shape[0]]])


def rows_of(spec: Any, name: str) -> Rows:
    """Rows of a plane, found by its name's first letter: a, b, p, q and v, or k like q."""
    for field in (name[0], "rows" if name[0] == "a" else "q"):
        if hasattr(spec, field):
            return getattr(spec, field)
    raise LookupError(f"{type(spec).__name__} has no rows for {name}")
