"""Spellings of a sign as the front end hands them over; they differ at zero."""

from tvm.relax import op

from tests.passes.graphs import const


def sign(e, x):
    return e(op.sign(x))


def where(e, x):
    return e(op.where(e(op.greater_equal(x, const(0))), const(1), const(-1)))


def where_less(e, x):
    return e(op.where(e(op.less(x, const(0))), const(-1), const(1)))


def where_at_most(e, x):
    return e(op.where(e(op.less_equal(x, const(0))), const(-1), const(1)))


def greater(e, x):
    mask = e(op.astype(e(op.greater(x, const(0))), "float32"))
    return e(op.subtract(e(op.multiply(mask, const(2))), const(1)))


def heaviside(e, x, at_zero=0.5):
    step = e(op.where(e(op.less(x, const(0))), const(0), const(1)))
    step = e(op.where(e(op.equal(x, const(0))), const(at_zero), step))
    return e(op.subtract(e(op.multiply(step, const(2))), const(1)))


def heaviside_up(e, x):
    return heaviside(e, x, 1.0)


def heaviside_down(e, x):
    return heaviside(e, x, 0.0)


def rounding(e, x):
    half = e(op.divide(e(op.add(x, const(1))), const(2)))
    unit = e(op.round(e(op.clip(half, 0, 1))))
    return e(op.subtract(e(op.multiply(unit, const(2))), const(1)))


def bipolar(e, x):
    return e(op.where(e(op.greater_equal(x, const(0))), const(0.25), const(-0.25)))


def negative(e, x):
    return e(op.multiply(sign(e, x), const(-2)))


SIGNS = {
    sign: "sign 0", where: "sign 1", where_less: "sign 1", where_at_most: "sign -1",
    greater: "sign -1", heaviside: "sign 0", heaviside_up: "sign 1", heaviside_down: "sign -1",
    rounding: "sign -1", bipolar: "sign 1", negative: "sign 0",
}  # fmt: skip
"""What each spelling is recognised as: a sign, and what 0 becomes."""
