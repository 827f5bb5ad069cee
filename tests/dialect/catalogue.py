"""One or more specs of every packed operator, and random arguments for any spec."""

import numpy as np

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Compare,
    Dense,
    Kind,
    Operand,
    Step,
    Thresholds,
    ValuePlanes,
)

ROWS = Rows(2, 5, 2, 33)
HEADS = Rows(2, 5, 2, 24)
STEPS = (Step("mul", Operand.COLUMN), Step("add", Operand.TENSOR), Step("mul", Operand.SCALAR))
SIGN, MASK, MASKED = Kind.SIGN, Kind.MASK, Kind.MASKED

SPECS = {
    "binarize": Binarize(ROWS, Compare(SIGN, 0.25, strict=False), norm=False, shift=True),
    "binarize_norm": Binarize(ROWS, Compare(MASKED), norm=True, shift=True, eps=1e-5),
    "binarize_mask": Binarize(ROWS, Compare(MASK, -0.5), norm=False, shift=False),
    "dense_signs": Dense(ROWS, SIGN, SIGN, 40, 32, STEPS),
    "dense_masked": Dense(ROWS, MASKED, MASKED, 7, 32, STEPS[:1]),
    "dense_mask": Dense(ROWS, MASK, SIGN, 33, 32),
    "dense_bits": Dense(
        ROWS, SIGN, SIGN, 48, 32, thresholds=Thresholds(Rows(2, 5, 2, 24), Kind.MASK)
    ),
    "dense_zeros": Dense(
        ROWS, MASKED, MASKED, 33, 32, thresholds=Thresholds(Rows(2, 5, 1, 33), Kind.MASKED)
    ),
    "dense_wide": Dense(
        Rows(1, 2, 1, 2**14), SIGN, SIGN, 1, 32, thresholds=Thresholds(Rows(1, 2, 1, 1), SIGN)
    ),
    "value_planes": ValuePlanes(HEADS, MASKED, True, (0.7, 0.9)),
    "attention_planes": AttentionPlanes(
        HEADS, MASKED, SIGN, 2, True, 64, True, False, (0.7, 0.9)
    ),
    "attention_planes_alone": AttentionPlanes(HEADS, SIGN, SIGN, 1, True, 64, False, True, ()),
    "attention_value": AttentionValue(HEADS, MASKED, 3, 3, False, None),
    "attention_value_bits": AttentionValue(HEADS, SIGN, 1, 1, True, Compare(MASKED)),
    "batch_matmul": BatchMatmul(Rows(2, 3, 1, 33), Rows(2, 4, 1, 33), (MASK, MASKED), (SIGN,)),
}  # fmt: skip
"""Every operator, with and without its options, widths that end inside a word."""


def arguments(spec, seed=0):
    """Random inputs of ``spec``; floats are small multiples of 1/4, so sums of them are exact."""
    rng = np.random.default_rng(seed)
    return [_random(rng, *tensor) for tensor in spec.inputs()]


def _random(rng, name, shape, dtype):
    if name == "scalars":  # scale, factor, bound of attention
        return np.array([0.5, 0.25, 0.2], np.float32)
    if name.endswith("_zeros"):
        return np.ones(shape, dtype)
    if dtype == "float32":
        values = (rng.integers(-12, 13, shape) / 4).astype(np.float32)
        return np.abs(values) + 1 if name == "gamma" else values
    if name.endswith("lo"):
        return rng.integers(-20, 20, shape).astype(dtype)
    if name.endswith("width"):
        return rng.integers(0, 20, shape).astype(dtype)
    return rng.integers(0, 2**32, shape, dtype=np.uint32)
