"""Zero planes go where no zero can be reached, and every reader is told."""

import numpy as np
import pytest
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes.drop_zero_planes import DropZeroPlanes
from gsb_tvm.passes.fold_thresholds import FoldThresholds
from gsb_tvm.passes.fuse_dense_steps import FuseDenseSteps
from gsb_tvm.passes.pack_attention import PackAttention
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.passes.pack_matmul import PackMatmul
from gsb_tvm.passes.simplify_views import SimplifyViews
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, operators
from tests.passes.graphs import (
    Attention,
    bindings,
    const,
    quarters,
    recognised,
    through,
    two_level,
)

PACK = PackDense(resolve("llvm -mtriple=x86_64-linux-gnu"))
PASSES = (PackAttention(), PACK, PackMatmul(), SimplifyViews(), FuseDenseSteps(), FoldThresholds())
THIRD = np.float32(1 / 3)  # a bias that no integer times 1/2 cancels


def linear(e, x, k, bias, at_zero=1, columns=48, number=0):
    """0.5 * (sign x . w) + bias; the sign has no zeros unless ``at_zero`` is 0."""
    plane = e(op.sign(x)) if at_zero == 0 else e(
        op.where(e(op.greater_equal(x, const(0))), const(1), const(-1))
    )  # fmt: skip
    y = e(op.matmul(plane, const(two_level(k, columns, number=number))))
    return e(op.add(y, const(np.broadcast_to(np.float32(bias), columns))))


def two_layers(bias, k=33, at_zero=1, weight=None):
    """A layer that feeds the sign of another."""

    def build(e, x):
        y = e(op.sign(linear(e, x, k, bias, at_zero)))
        return e(op.matmul(y, const(two_level(48, 7, number=1))))

    return through(recognised({"x": (2, 3, k)}, build), *PASSES)


def kinds(module):
    first, second = (ops.spec_of(call) for call in bindings(module, "gsb.dense"))
    return first.thresholds.kind, second.activation


def test_no_zero_at_all():
    before = two_layers(THIRD)
    assert kinds(before) == (Kind.MASKED, Kind.MASKED)
    after = assert_rewrites(DropZeroPlanes(), before, inputs=[quarters(2, 3, 33)])
    assert kinds(after) == (Kind.SIGN, Kind.SIGN)


@pytest.mark.parametrize("k", [2, 31, 32, 33, 63, 64, 65])
def test_a_zero_of_the_wrong_parity_is_not_reached(k):
    """Without a bias the zero is at the integer 0: signs times signs reach it where K is even."""
    before = two_layers(0, k=k)
    if k % 2 == 0:
        assert_leaves_alone(DropZeroPlanes(), before)
    else:
        after = assert_rewrites(DropZeroPlanes(), before, inputs=[quarters(2, 3, k)])
        assert kinds(after) == (Kind.SIGN, Kind.SIGN)


def test_zeros_of_the_activation_reach_every_integer():
    assert_leaves_alone(DropZeroPlanes(), two_layers(0, k=33, at_zero=0))


def test_one_column_with_a_zero_keeps_the_plane():
    bias = np.full(48, THIRD)
    bias[17] = 0.5  # the integer -1, of the parity of 33
    assert_leaves_alone(DropZeroPlanes(), two_layers(bias))
    bias[17] = 1.0  # the integer -2
    assert_rewrites(DropZeroPlanes(), two_layers(bias))


def test_a_chain_of_layers_drops_one_after_the_other():
    """The parity of a layer counts once its own input is known to have no zeros."""

    def build(e, x):
        y = e(op.sign(linear(e, x, 33, THIRD, columns=33)))
        z = e(op.sign(e(op.matmul(y, const(two_level(33, 48, number=2))))))
        return e(op.matmul(z, const(two_level(48, 7, number=1))))

    before = through(recognised({"x": (2, 3, 33)}, build), *PASSES)
    after = assert_rewrites(DropZeroPlanes(), before, inputs=[quarters(2, 3, 33)])
    specs = [ops.spec_of(call) for call in bindings(after, "gsb.dense")]
    assert [spec.activation for spec in specs] == [Kind.SIGN] * 3


def test_attention_is_told():
    options = Attention(v_scales=(0.5,))

    def build(e, x):
        q, k, v = (linear(e, x, 33, THIRD, number=number) for number in range(3))
        return options.build(e, q, k, v)

    before = through(recognised({"x": (2, 5, 33)}, build), *PASSES)
    after = assert_rewrites(DropZeroPlanes(), before, inputs=[quarters(2, 5, 33)])
    planes = ops.spec_of(bindings(after, "gsb.attention_planes")[0])
    assert (planes.query_kind, planes.key_kind) == (Kind.SIGN, Kind.SIGN)
    assert ops.spec_of(bindings(after, "gsb.attention_value")[0]).value_kind is Kind.SIGN


@pytest.mark.parametrize("both", [False, True])
def test_a_product_of_two_layers_is_told(both):
    """One head, no views between: the layers write the planes of the product themselves."""

    def build(e, x, y):
        left = e(op.sign(linear(e, x, 33, THIRD)))
        right = linear(e, y, 33, THIRD if both else 0.5, number=1)
        return e(op.matmul(left, e(op.permute_dims(e(op.sign(right)), [0, 2, 1]))))

    shapes = {"x": (2, 3, 33), "y": (2, 4, 33)}
    before = through(recognised(shapes, build), *PASSES)
    inputs = [quarters(2, 3, 33), quarters(2, 4, 33, number=1)]
    after = assert_rewrites(DropZeroPlanes(), before, inputs=inputs)
    spec = ops.spec_of(bindings(after, "gsb.batch_matmul")[0])
    assert spec.a_kinds == (Kind.SIGN,)
    assert operators(after)["gsb.dense"] == 2


def test_masks_and_floats_stay():
    def build(e, x):
        mask = e(op.astype(e(op.greater(linear(e, x, 33, THIRD), const(0))), "float32"))
        return e(op.matmul(mask, const(two_level(48, 7, number=1))))

    assert_leaves_alone(DropZeroPlanes(), through(recognised({"x": (2, 3, 33)}, build), *PASSES))
