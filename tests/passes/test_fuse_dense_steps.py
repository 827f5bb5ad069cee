"""Float steps after a packed layer move into it, in their order."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.specs import Operand
from gsb_tvm.passes.fuse_dense_steps import FuseDenseSteps
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators
from tests.passes.graphs import bindings, const, quarters, through, two_level

SHAPE, COLUMNS = (2, 3, 33), 33
BIAS = quarters(COLUMNS, number=5) * np.float32(1.1)  # not exact: the order of steps shows
INPUTS = [quarters(*SHAPE), quarters(*SHAPE, number=1) * np.float32(1.3)]


def layer(after, w_scale=0.7):
    """A packed layer of the sign of x; ``after(emit, y, r)`` follows, r another input."""

    def build(e, x, r):
        scales = [const(w_scale)], [const(np.sign(two_level(33, COLUMNS)))], [const(1)]
        return after(e, e(ops.matmul([e(ops.sign(x, 0))], *scales)), r)

    before = module_of({"x": SHAPE, "r": SHAPE}, build)
    return through(before, PackDense(resolve("llvm -mtriple=x86_64-linux-gnu")))


def steps(module):
    (call,) = bindings(module, "gsb.dense")
    return [(step.op, step.operand) for step in ops.spec_of(call).steps[1:]]


def bias(e, y, r):
    return e(op.add(y, const(BIAS)))


def bias_first(e, y, r):
    return e(op.add(const(BIAS), y))


def scalar(e, y, r):
    return e(op.multiply(y, const(0.3)))


def row_of_scales(e, y, r):
    return e(op.multiply(y, const(BIAS[None, None])))


def residual(e, y, r):
    return e(op.add(y, r))


def residual_first(e, y, r):
    return e(op.add(r, y))


def gate(e, y, r):
    return e(op.multiply(y, r))


def all_of_them(e, y, r):
    return residual(e, scalar(e, bias(e, y, r), r), r)


def constant_tensor(e, y, r):
    return e(op.add(y, const(np.full(SHAPE, 0.3))))


ADD, MUL = "add", "mul"
FUSED = {
    bias: [(ADD, Operand.COLUMN)],
    bias_first: [(ADD, Operand.COLUMN)],
    scalar: [(MUL, Operand.SCALAR)],
    row_of_scales: [(MUL, Operand.COLUMN)],
    residual: [(ADD, Operand.TENSOR)],
    residual_first: [(ADD, Operand.TENSOR)],
    gate: [(MUL, Operand.TENSOR)],
    all_of_them: [(ADD, Operand.COLUMN), (MUL, Operand.SCALAR), (ADD, Operand.TENSOR)],
    constant_tensor: [(ADD, Operand.SCALAR)],
}


@pytest.mark.parametrize("after", FUSED, ids=lambda f: f.__name__)
def test_steps_join_the_layer_in_their_order(after):
    fused = assert_rewrites(FuseDenseSteps(), layer(after), inputs=INPUTS)
    assert steps(fused) == FUSED[after]
    assert set(operators(fused)) == {"gsb.binarize", "gsb.dense"}


def test_two_layers_that_are_added_take_each_other():
    """The second layer's result is the operand of the first one's last step."""

    def after(e, y, r):
        scales = [const(0.3)], [const(np.sign(two_level(33, COLUMNS, number=1)))], [const(1)]
        return e(op.add(y, e(ops.matmul([e(ops.sign(r, 0))], *scales))))

    fused = assert_rewrites(FuseDenseSteps(), layer(after), inputs=INPUTS)
    assert operators(fused)["relax.add"] == 0


def read_twice(e, y, r):
    return relax.Tuple([e(op.add(y, r)), e(op.tanh(y))])


def doubled(e, y, r):
    return e(op.add(y, y))


def broadcast(e, y, r):
    return e(op.add(y, e(op.mean(r, axis=[1], keepdims=True))))


def larger(e, y, r):
    return e(op.add(y, e(op.reshape(e(op.concat([r, r], 0)), (2, 2, 3, 33)))))


def per_token(e, y, r):
    return e(op.add(y, const(quarters(3, 1))))


def subtract(e, y, r):
    return e(op.subtract(y, const(BIAS)))


@pytest.mark.parametrize("after", [read_twice, doubled, broadcast, larger, per_token, subtract])
def test_what_is_no_step_of_one_layer_stays(after):
    assert_leaves_alone(FuseDenseSteps(), layer(after))
