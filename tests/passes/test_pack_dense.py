"""Products with binary weights become packed layers; integers are exact whatever the width."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators, run_module
from tests.passes.graphs import (
    K,
    bindings,
    const,
    merge_heads,
    quarters,
    recognised,
    split_heads,
    through,
    two_level,
)

PASS = PackDense(resolve("llvm -mtriple=x86_64-linux-gnu"))


def layer(k, columns=7, shape=None, spell=None, w=None):
    """gsb.matmul of the sign of x, whose K may be 1, with a weight."""
    spell = spell or (lambda e, x: e(ops.sign(x, 0)))
    w = two_level(k, columns) if w is None else w
    scale = np.abs(w).max(0, keepdims=True)
    signs = np.sign(w)

    def build(e, x):
        return e(ops.matmul([spell(e, x)], [const(0.25)], [const(signs)], [const(scale)]))

    return module_of({"x": shape or (2, 3, k)}, build)


def specs(module, name="gsb.dense"):
    return [ops.spec_of(call) for call in bindings(module, name)]


@pytest.mark.parametrize("k", K)
@pytest.mark.parametrize("at_zero", [-1, 0, 1])
def test_signs_of_every_width(k, at_zero):
    before = layer(k, spell=lambda e, x: e(ops.sign(x, at_zero)))
    after = assert_rewrites(PASS, before, inputs=[quarters(2, 3, k)])
    assert operators(after)["gsb.matmul"] == 0
    (spec,) = specs(after)
    assert spec.activation is (Kind.SIGN if at_zero else Kind.MASKED)
    assert spec.rows == Rows(2, 3, 1, k)


@pytest.mark.parametrize("k", K)
@pytest.mark.parametrize("compare", ["gt", "ge"])
def test_masks_of_every_width(k, compare):
    before = layer(k, spell=lambda e, x: e(ops.mask(x, const(0.25), compare)))
    after = assert_rewrites(PASS, before, inputs=[quarters(2, 3, k)])
    assert specs(after)[0].activation is Kind.MASK


@pytest.mark.parametrize("columns", [1, 31, 32, 33, 65])
def test_column_scales_and_any_number_of_columns(columns):
    w = two_level(33, columns) * 2.0 ** np.random.default_rng(0).integers(-3, 4, columns)
    assert_rewrites(PASS, layer(33, w=w), inputs=[quarters(2, 3, 33)])


@pytest.mark.parametrize("shape", [(5, 33), (1, 1, 33), (4, 17, 33)])
def test_tokens_with_and_without_a_batch(shape):
    after = assert_rewrites(PASS, layer(33, shape=shape), inputs=[quarters(*shape)])
    rows = specs(after)[0].rows
    assert (rows.batch, rows.tokens) == ((1, 5) if len(shape) == 2 else shape[:2])


def test_zeros_among_the_weights():
    w = two_level(33, 7)
    w[0, 0] = w[32, 6] = w[31, 3] = 0
    after = assert_rewrites(PASS, layer(33, w=w), inputs=[quarters(2, 3, 33)])
    assert specs(after)[0].weight is Kind.MASKED


def test_a_superposed_activation_is_a_sum_of_layers():
    def build(e, x):
        planes = [e(ops.sign(x, 0)), e(ops.mask(x, const(1), "gt"))]
        scales, signs = [const(0.5), const(2)], const(np.sign(two_level(33, 7)))
        return e(ops.matmul(planes, scales, [signs, signs], [const(1), const(0.25)]))

    before = module_of({"x": (2, 3, 33)}, build)
    after = assert_rewrites(PASS, before, inputs=[quarters(2, 3, 33)])
    assert operators(after)["gsb.dense"] == 4
    assert operators(after)["gsb.binarize"] == 2


def live_mask(e, x):
    return e(ops.mask(x, e(op.multiply(e(op.max(x)), const(0.5))), "gt"))


def below(e, x):
    return e(ops.mask(x, const(0.5), "lt"))


def masked_sign(e, x):
    return e(op.multiply(e(ops.sign(x, 0)), live_mask(e, x)))


def viewed(e, x):
    plane = e(ops.sign(e(op.reshape(x, (2, 33, 3))), 0))
    return e(op.permute_dims(plane, [0, 2, 1]))


def viewed_mask(e, x):
    plane = live_mask(e, e(op.reshape(x, (2, 33, 3))))
    return e(op.permute_dims(plane, [0, 2, 1]))


@pytest.mark.parametrize(
    ("spell", "kind"),
    [
        (live_mask, Kind.MASK),
        (below, Kind.MASK),
        (viewed_mask, Kind.MASK),
        (masked_sign, Kind.MASKED),
        (viewed, Kind.MASKED),
    ],
)
def test_a_plane_that_is_no_comparison_with_a_number_packs_its_own_values(spell, kind):
    after = assert_rewrites(PASS, layer(33, spell=spell), inputs=[quarters(2, 3, 33)])
    assert specs(after)[0].activation is kind


def test_a_bound_that_every_float_passes():
    """Specs have no infinity, the plane's own values do."""
    before = layer(33, spell=lambda e, x: e(ops.mask(x, const(-np.inf), "gt")))
    assert_rewrites(PASS, before, inputs=[quarters(2, 3, 33)])


def attention_output(e, x):
    heads = split_heads(e, x, 2, 24)
    return e(ops.sign(e(op.add(merge_heads(e, heads), const(quarters(48)))), 0))


def one_part_of_a_split(e, x):
    wide = e(op.reshape(e(op.concat([x, x, x], 2)), (2, 3, 3, 48)))
    parts = e(op.split(e(op.permute_dims(wide, [2, 0, 1, 3])), 3, axis=0))
    return e(ops.sign(e(op.squeeze(e(relax.TupleGetItem(parts, 1)), [0])), 0))


@pytest.mark.parametrize(("spell", "groups"), [(attention_output, 2), (one_part_of_a_split, 1)])
def test_words_follow_the_heads_that_made_the_activation(spell, groups):
    before = layer(48, spell=spell)
    after = assert_rewrites(PASS, before, inputs=[quarters(2, 3, 48)])
    assert specs(after)[0].rows == Rows(2, 3, groups, 48 // groups)


def test_an_axis_that_happens_to_have_the_batchs_extent_makes_no_groups():
    def spell(e, x):  # (3, 3, 3 * 8): the view (3, 3, 3, 8) is sliced before it is read
        stacked = e(op.permute_dims(e(op.reshape(x, (3, 3, 3, 8))), [2, 0, 1, 3]))
        return e(ops.sign(e(op.squeeze(e(op.strided_slice(stacked, [0], [1], [2])), [0])), 0))

    before = layer(8, spell=spell, shape=(3, 3, 24))
    assert_rewrites(PASS, before, inputs=[quarters(3, 3, 24)])


def per_token(e, x):
    return e(op.multiply(e(op.sign(x)), const(2.0 ** np.arange(3)[:, None])))


def four_axes(e, x):
    return e(op.reshape(e(op.sign(x)), (2, 3, 1, 33)))


@pytest.mark.parametrize("spell", [per_token, four_axes])
def test_other_layouts_stay_and_are_right(spell):
    def build(e, x):
        return e(op.matmul(spell(e, x), const(two_level(33, 7))))

    before = recognised({"x": (2, 3, 33)}, build)
    assert operators(before)["gsb.matmul"] == 1
    assert_leaves_alone(PASS, before)


def test_products_of_live_tensors_stay():
    def build(e, x):
        plane = e(op.sign(x))
        return e(op.matmul(plane, e(op.permute_dims(plane, [0, 2, 1]))))

    assert_leaves_alone(PASS, recognised({"x": (2, 3, 33)}, build))


# Metamorphic: what must not change the numbers -----------------------------------------------


def run_layer(x, w):
    module = through(layer(w.shape[0], shape=x.shape, w=w), PASS)
    return run_module(module, x)[0]


@seed(0)
@settings(max_examples=6, deadline=None, database=None)
@given(k=st.integers(2, 70), columns=st.integers(1, 40), number=st.integers(0, 99))
def test_relations_between_packed_layers(k, columns, number):
    rng = np.random.default_rng(number)
    x, w = quarters(2, 3, k, number=number), two_level(k, columns, number=number)
    y = run_layer(x, w)
    order = rng.permutation(k)
    np.testing.assert_array_equal(run_layer(x[..., order], w[order]), y)
    np.testing.assert_array_equal(run_layer(-x, -w), y)
    np.testing.assert_array_equal(run_layer(-x, w), -y)
    zeros = np.zeros((2, 3, 5), np.float32)  # their sign is 0
    padded = run_layer(np.concatenate([x, zeros], -1), np.concatenate([w, w[:1].repeat(5, 0)]))
    np.testing.assert_array_equal(padded, y)
    columns_moved = rng.permutation(columns)
    np.testing.assert_array_equal(run_layer(x, w[:, columns_moved]), y[..., columns_moved])
    np.testing.assert_array_equal(run_layer(x * 8, w), y)
