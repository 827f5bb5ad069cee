"""Queries, keys and values get dense layers of their own, in every spelling of the split."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect.ops import shape_of
from gsb_tvm.passes.split_columns import SplitColumns
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, operators
from tests.passes.graphs import (
    bindings,
    const,
    merge_heads,
    quarters,
    recognised,
    split_heads,
    two_level,
)

K, HEADS = 33, 2


def qkv(e, x, width, count=3, bias=True, scale=0.5):
    """The fused projection (batch, tokens, count * heads * width)."""
    columns = count * HEADS * width
    w = two_level(K, columns) * 2.0 ** np.random.default_rng(1).integers(-2, 3, columns)
    y = e(op.matmul(e(op.multiply(e(op.sign(x)), const(scale))), const(w)))
    return e(op.add(y, const(quarters(columns, number=3)))) if bias else y


def heads_first(e, y, width, count=3):
    batch, tokens = shape_of(y)[:2]
    by_head = e(op.reshape(y, (batch, tokens, count, HEADS, width)))
    return e(op.permute_dims(by_head, [2, 0, 3, 1, 4]))


def by_split(e, y, width):
    parts = e(op.split(heads_first(e, y, width), 3, axis=0))
    return [e(op.squeeze(e(relax.TupleGetItem(parts, i)), [0])) for i in range(3)]


def by_slices(e, y, width):
    stacked = heads_first(e, y, width)
    slices = [e(op.strided_slice(stacked, [0], [i], [i + 1])) for i in range(3)]
    return [e(op.squeeze(part, [0])) for part in slices]


def by_column_slices(e, y, width):
    """Sliced before the heads are told apart."""
    size = HEADS * width
    parts = [e(op.strided_slice(y, [2], [i * size], [(i + 1) * size])) for i in range(3)]
    return [split_heads(e, part, HEADS, width) for part in parts]


def attend(e, q, k, v):
    """Products of the three that need no softmax: (sign q . sign k) > 0, then times sign v."""
    scores = e(op.matmul(e(op.sign(q)), e(op.permute_dims(e(op.sign(k)), [0, 1, 3, 2]))))
    mask = e(op.astype(e(op.greater(scores, const(0))), "float32"))
    return merge_heads(e, e(op.matmul(mask, e(op.sign(v)))))


def module(spell, batch=1, tokens=5, width=24, move=True, **options):
    def build(e, x):
        parts = spell(e, qkv(e, x, width, **options), width)
        if move:
            parts = [
                e(op.add(part, const(quarters(HEADS, 1, width, number=i))))
                for i, part in enumerate(parts)
            ]
        return attend(e, *parts)

    return recognised({"x": (batch, tokens, K)}, build)


@pytest.mark.parametrize("spell", [by_split, by_slices, by_column_slices])
@pytest.mark.parametrize(("batch", "tokens", "width"), [(1, 5, 24), (4, 7, 64), (2, 2, 1)])
def test_each_reader_gets_its_columns(spell, batch, tokens, width):
    before = module(spell, batch, tokens, width)
    after = assert_rewrites(SplitColumns(), before, inputs=[quarters(batch, tokens, K)])
    shapes = [shape_of(call) for call in bindings(after, "gsb.matmul")]
    assert shapes.count((batch, tokens, HEADS * width)) == 3
    assert len(shapes) == 5
    left = operators(after)
    assert left["relax.split"] == left["relax.strided_slice"] == left["relax.squeeze"] == 0
    # Steps come before the move to heads, where a dense layer can take them.
    assert left["relax.add"] == 6
    assert left["relax.reshape"] == left["relax.permute_dims"] - 1 == 4


@pytest.mark.parametrize("options", [{"bias": False}, {"scale": 2.0}, {"move": False}])
def test_without_bias_or_moves(options):
    assert_rewrites(SplitColumns(), module(by_slices, **options), inputs=[quarters(1, 5, K)])


def test_extremes_and_masks_read_the_same_columns():
    def build(e, x):
        *_, v = by_slices(e, qkv(e, x, 24), 24)
        mask = e(op.greater(v, e(op.multiply(e(op.max(v)), const(0.5)))))
        other = e(op.permute_dims(e(op.sign(v)), [0, 1, 3, 2]))
        return e(op.matmul(e(op.astype(mask, "float32")), other))

    before = recognised({"x": (1, 5, K)}, build)
    after = assert_rewrites(SplitColumns(), before, inputs=[quarters(1, 5, K)])
    assert [shape_of(call)[-1] for call in bindings(after, "gsb.matmul")] == [48, 5]


def test_a_constant_that_comes_first_stays_first():
    def build(e, x):
        q, k, _ = by_slices(e, qkv(e, x, 24), 24)
        left = e(op.sign(e(op.subtract(const(quarters(HEADS, 1, 24)), q))))
        return e(op.matmul(left, e(op.permute_dims(e(op.sign(k)), [0, 1, 3, 2]))))

    before = recognised({"x": (1, 5, K)}, build)
    assert_rewrites(SplitColumns(), before, inputs=[quarters(1, 5, K)])


def one_layer(read, shift=None, bias=True):
    """A product of one projection's heads with themselves; ``read`` is what the sign sees."""

    def build(e, x):
        y = qkv(e, x, 24, count=1, bias=bias)
        heads = read(e, y, x)
        if shift is not None:
            heads = e(op.add(heads, const(shift)))
        plane = e(op.sign(heads))
        return e(op.matmul(plane, e(op.permute_dims(plane, [0, 1, 3, 2]))))

    return recognised({"x": (2, 5, K)}, build)


def all_columns(e, y, x):
    return split_heads(e, y, HEADS, 24)


def tokens_mixed(e, y, x):
    return e(op.permute_dims(e(op.reshape(y, (2, 2, 5, 24))), [0, 1, 2, 3]))


def live_step(e, y, x):
    first = e(op.strided_slice(x, [2], [0], [1]))
    return split_heads(e, e(op.multiply(y, first)), HEADS, 24)


def function_step(e, y, x):
    return split_heads(e, e(op.tanh(y)), HEADS, 24)


def single_tokens(e, y, x):
    return e(op.strided_slice(split_heads(e, y, HEADS, 24), [2], [0], [2]))


@pytest.mark.parametrize(
    "read", [all_columns, tokens_mixed, live_step, function_step, single_tokens]
)
def test_what_takes_no_columns_of_its_own_stays(read):
    assert_leaves_alone(SplitColumns(), one_layer(read))


def test_a_constant_that_changes_with_the_token_stays():
    assert_leaves_alone(SplitColumns(), one_layer(all_columns, shift=quarters(5, 24)))


def test_no_views_at_all():
    def build(e, x):
        plane = e(op.sign(qkv(e, x, 24, count=1)))
        return e(op.matmul(plane, e(op.permute_dims(plane, [0, 2, 1]))))

    assert_leaves_alone(SplitColumns(), recognised({"x": (2, 5, K)}, build))


def test_a_shift_of_heads_moves_before_the_view_though_all_columns_are_taken():
    before = one_layer(all_columns, shift=quarters(HEADS, 1, 24))
    after = assert_rewrites(SplitColumns(), before, inputs=[quarters(2, 5, K)])
    assert [shape_of(call) for call in bindings(after, "relax.add")] == [(2, 5, 48)] * 2


def test_interleaved_heads_are_put_in_order():
    """Column j of head h lies at j * heads + h."""

    def read(e, y, x):
        return e(op.permute_dims(e(op.reshape(y, (2, 5, 24, HEADS))), [0, 3, 1, 2]))

    assert_rewrites(SplitColumns(), one_layer(read), inputs=[quarters(2, 5, K)])


def test_a_product_of_live_tensors_is_no_dense_layer():
    def build(e, x):
        plane = e(op.sign(x))
        scores = e(op.matmul(plane, e(op.permute_dims(plane, [0, 2, 1]))))
        heads = e(op.sign(e(op.reshape(scores, (2, 5, 5, 1)))))
        return e(op.matmul(heads, e(op.permute_dims(heads, [0, 1, 3, 2]))))

    assert_leaves_alone(SplitColumns(), recognised({"x": (2, 5, K)}, build))
