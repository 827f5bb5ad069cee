"""Which kernels are checked on a GPU: all families, awkward and real shapes, several choices."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm.ir import save_json

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
    Patches,
    Step,
    Thresholds,
    ValuePlanes,
)
from gsb_tvm.schedules import families
from gsb_tvm.schedules.choices import Value
from gsb_tvm.targets import Profile
from tests.gpu.widening import times
from tests.schedules.cuda.test_float import CASES, CHOSEN

_FEW = 2  # choices of an awkward shape beside the rule's
_COMPARED = {1: 4, 64: 0, 256: 4}
"""Batch of DeiT-Small -> choices that are timed against the rule's."""
_MOST_DRAWN = 2  # images: the oracle's products are int64, of which NumPy does 1e9 a second

_STEPS = (Step("mul", Operand.SCALAR), Step("add", Operand.COLUMN), Step("add", Operand.TENSOR))
_RATIOS = (0.7, 0.9)
_EPS = 9.999999960041972e-13


@dataclass(frozen=True)
class Planned:
    """A kernel to compile: ``spec`` is ``drawn`` with more images."""

    name: str
    drawn: Any
    spec: Any
    choice: dict[str, Value]
    is_rule: bool
    is_small: bool


@dataclass(frozen=True)
class PlannedFloat:
    """A float operator to compile; ``source`` is its unscheduled PrimFunc as TVM saves it."""

    name: str
    source: str


def planned_floats() -> Iterator[PlannedFloat]:
    """Each way of each rule for float operators."""
    for name in CHOSEN:
        for number, func in enumerate(CASES[name]()):
            words = re.sub(r"[^a-z0-9]+", "-", name)
            yield PlannedFloat(f"float-{words}.{number}", save_json(func))


def to_floats(rows: Rows, activation: Kind, columns: int, weight: Kind = Kind.SIGN) -> Dense:
    """A dense layer with a scale, a bias and a residual."""
    return Dense(rows, activation, weight, columns, 64, _STEPS)


def to_bits(rows: Rows, out: Rows, activation: Kind, kind: Kind, weight: Kind = Kind.SIGN) -> Dense:
    """A dense layer with thresholds."""
    return Dense(rows, activation, weight, out.features, 64, (), Thresholds(out, kind))


def awkward() -> dict[str, Any]:
    """Small, with ends in the middle of words, tiles and warps."""
    masked, sign, mask = Kind.MASKED, Kind.SIGN, Kind.MASK
    both = (masked,), (sign, masked)
    return {
        "dense-masked": to_floats(Rows(2, 21, 2, 200), masked, 127, masked),
        "dense-bits": to_bits(Rows(3, 35, 1, 161), Rows(3, 35, 2, 41), masked, masked),
        "dense-31": to_floats(Rows(1, 17, 1, 31), sign, 33),
        "dense-33": to_floats(Rows(1, 1, 1, 33), mask, 1),
        "dense-4096": to_floats(Rows(1, 5, 1, 4096), sign, 65),
        "binarize": Binarize(Rows(2, 21, 3, 40), Compare(masked, 0.0, True), True, True, _EPS),
        "binarize-wide": Binarize(Rows(1, 3, 1, 5000), Compare(sign), True, False, _EPS),
        "batch-matmul": BatchMatmul(Rows(1, 37, 1, 300), Rows(1, 70, 1, 300), *both),
        "batch-matmul-70": BatchMatmul(Rows(2, 21, 2, 70), Rows(2, 35, 2, 70), (mask,), (masked,)),
        "attention-planes": AttentionPlanes(
            Rows(2, 37, 2, 41), masked, sign, 2, True, 64, True, True, _RATIOS
        ),
        "attention-planes-1": AttentionPlanes(
            Rows(2, 1, 2, 41), sign, masked, 1, True, 64, False, False, (0.9, 0.5)
        ),
        "attention-planes-300": AttentionPlanes(
            Rows(1, 300, 1, 32), sign, sign, 2, True, 64, True, True, _RATIOS
        ),
        "attention-value": AttentionValue(Rows(2, 37, 2, 24), masked, 3, 3, True, Compare(masked)),
        "attention-value-300": AttentionValue(Rows(1, 300, 1, 31), sign, 1, 3, True, None),
        "value-planes": ValuePlanes(Rows(2, 21, 3, 40), masked, True, _RATIOS),
        "patches": Patches(2, 3, (9, 14), (4, 4), 36, True, True, True, 2),
        "patches-33": Patches(1, 1, (15, 21), (5, 7), 33, True, False, True, 1),
    }


def deit_small() -> dict[str, Any]:
    """The operators of GSB DeiT-Small, for one image, and a general product of heads."""
    masked, sign, mask = Kind.MASKED, Kind.SIGN, Kind.MASK
    tokens, heads = Rows(1, 198, 1, 384), Rows(1, 198, 6, 64)
    head = Rows(6, 198, 1, 64)
    return {
        "qk": to_bits(tokens, heads, masked, masked),
        "proj": to_floats(heads, masked, 384),
        "fc1": to_bits(tokens, Rows(1, 198, 1, 1536), masked, mask),
        "fc2": to_floats(Rows(1, 198, 1, 1536), mask, 384),
        "norm": Binarize(tokens, Compare(masked, 0.0, True), True, True, _EPS),
        "values": ValuePlanes(heads, masked, False, _RATIOS),
        "attention": AttentionPlanes(heads, sign, sign, 2, True, 64, True, True, _RATIOS),
        "attention-value": AttentionValue(heads, masked, 3, 3, True, Compare(masked)),
        "scores": BatchMatmul(head, head, (masked,), (masked, mask)),
        "patches": Patches(1, 3, (224, 224), (16, 16), 384, True, True, True, 2),
    }


def planned(profile: Profile) -> Iterator[Planned]:
    """All kernels, the awkward ones first."""
    for name, spec in awkward().items():
        for number, choice in enumerate(_choices(spec, profile, _FEW)):
            yield Planned(f"{name}.{number}", spec, spec, choice, number == 0, True)
    for name, spec in deit_small().items():
        for batch, count in _COMPARED.items():
            drawn, whole = times(spec, min(batch, _MOST_DRAWN)), times(spec, batch)
            for number, choice in enumerate(_choices(whole, profile, count)):
                called = f"deit-{name}-{batch}.{number}"
                yield Planned(called, drawn, whole, choice, number == 0, False)


def _choices(spec: Any, profile: Profile, count: int) -> list[dict[str, Value]]:
    """The rule's, and others of the space."""
    rule, *others = families.space(spec, profile)
    return [dict(choice) for choice in (rule, *spread(others, count))]


def spread(space: Sequence[Any], count: int) -> list[Any]:
    """So many of a space, or all, the first and the last, as far as there are, among them."""
    if len(space) <= count:
        return list(space)
    last = len(space) - 1
    return [space[number * last // max(count - 1, 1)] for number in range(count)]
