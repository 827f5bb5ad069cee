"""Dense layers on CUDA: exact in emulation, and the instructions they are meant to become."""

from dataclasses import replace

import pytest

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Dense, Kind, Operand, Step, Thresholds
from gsb_tvm.schedules import families
from gsb_tvm.schedules.cuda.tile import Method, Shape
from gsb_tvm.schedules.dense.cuda import kernel
from gsb_tvm.targets import resolve
from tests.effort import every
from tests.schedules.cuda.kernels import check

STEPS = (
    Step("mul", Operand.SCALAR),
    Step("add", Operand.COLUMN),
    Step("add", Operand.TENSOR),
)
SM_90 = resolve("cuda -arch=sm_90")


def to_floats(rows, activation=Kind.SIGN, weight=Kind.SIGN, columns=64, steps=STEPS):
    return Dense(rows, activation, weight, columns, 64, steps)


def to_bits(rows, out, activation=Kind.SIGN, weight=Kind.SIGN, kind=Kind.SIGN):
    return Dense(rows, activation, weight, out.features, 64, (), Thresholds(out, kind))


SHAPES = [Shape(16, 64, 1, 2, 4, 2), Shape(64, 128, 2, 4, 8, 3), Shape(128, 64, 4, 1, 16, 2)]
WAYS = [
    *((shape, Method.TENSOR) for shape in SHAPES),
    *((SHAPES[1], method) for method in Method if method is not Method.TENSOR),
]


@pytest.mark.parametrize(("shape", "method"), WAYS, ids=str)
@pytest.mark.parametrize(
    ("activation", "weight"),
    every(2, [(kind, weight) for weight in (Kind.SIGN, Kind.MASKED) for kind in Kind]),
)
def test_floats_agree_with_the_oracle(activation, weight, shape, method):
    spec = to_floats(Rows(2, 21, 2, 200), activation, weight, 127)
    check(spec, kernel(spec, SM_90, replace(shape, method=method)))


@pytest.mark.parametrize(("shape", "method"), WAYS, ids=str)
@pytest.mark.parametrize("kind", Kind)
def test_bits_agree_with_the_oracle(kind, shape, method):
    spec = to_bits(Rows(3, 35, 1, 161), Rows(3, 35, 2, 41), Kind.MASKED, kind=kind)
    check(spec, kernel(spec, SM_90, replace(shape, method=method)))


@pytest.mark.parametrize("words", [1, 3, 4, 7, 8, 9, 12, 13, 31])
def test_every_length_of_rows(words):
    spec = to_floats(Rows(1, 17, 1, 32 * words - 5), Kind.MASKED)
    for shape in (Shape(16, 64, 1, 1, 4, 3), Shape(32, 64, 1, 2, 8, 2)):
        check(spec, kernel(spec, SM_90, shape))


LAYERS = {
    "qk": to_bits(Rows(1, 198, 1, 384), Rows(1, 198, 6, 64), Kind.MASKED),
    "proj": to_floats(Rows(1, 198, 6, 64), Kind.MASKED, columns=384),
    "fc1": to_bits(Rows(1, 198, 1, 384), Rows(1, 198, 1, 1536), Kind.MASKED, kind=Kind.MASK),
    "fc2": to_floats(Rows(1, 198, 1, 1536), Kind.MASK, columns=384),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_deit_small_by_rule(name):
    check(LAYERS[name], families.kernel(LAYERS[name], SM_90))


def of_batch(spec, batch):
    thresholds = spec.thresholds
    if thresholds is not None:
        thresholds = replace(thresholds, rows=replace(thresholds.rows, batch=batch))
    return replace(spec, rows=replace(spec.rows, batch=batch), thresholds=thresholds)


@pytest.mark.parametrize("name", LAYERS)
def test_the_space_has_the_rule_and_fits(name):
    spec = LAYERS[name]
    found = families.space(spec, SM_90)
    assert found[0] == families.rule(spec, SM_90)
    assert len(found) >= 40
    assert {choice["method"] for choice in found} == set(Method)


def test_the_largest_tile_that_fills_the_machine():
    assert families.rule(LAYERS["fc2"], SM_90)["rows"] == 16
    assert families.rule(of_batch(LAYERS["fc2"], 256), SM_90)["rows"] == 128
