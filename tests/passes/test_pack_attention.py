"""Softmax attention over superposed planes becomes three packed operators, or is left whole.

Before and after take exp and the sum of a row in another order: a mask flips where p lies within
1e-6 of a bound. The seeds here have no such p; everything behind the masks is exact.
"""

from dataclasses import replace

import numpy as np
import pytest
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes.pack_attention import PackAttention
from gsb_tvm.passes.pack_matmul import PackMatmul
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, operators, run_module
from tests.passes.graphs import (
    Attention,
    bindings,
    const,
    gsb_attention,
    merge_heads,
    quarters,
    recognised,
    rounded_mask,
    split_heads,
    through,
)

PASS = PackAttention()
PACKED = {"gsb.attention_planes": 1, "gsb.attention_value": 1}


def packed(options, superpose=None):
    """(spec of the planes, spec of the product) after the pass."""
    before = options.module(superpose)
    after = assert_rewrites(PASS, before, inputs=options.arrays())
    left = operators(after)
    assert left["gsb.matmul"] == left["relax.nn.softmax"] == 0
    return [ops.spec_of(bindings(after, name)[0]) for name in PACKED]


@pytest.mark.parametrize(
    "options",
    [
        Attention(),
        Attention(batch=1, tokens=17, heads=1, width=64),
        Attention(batch=4, tokens=5, heads=3, width=33),
        Attention(tokens=33, heads=1, width=1),
        Attention(p_scales=(0.5,), v_scales=(0.25,), bias=False),
        Attention(p_scales=(0.5,), bias=True),
        Attention(v_scales=(0.25,), bias=False),
    ],
    ids=["gsb", "64 wide", "batch of 4", "one wide", "one group", "one mask", "one value"],
)
def test_every_size_and_number_of_groups(options):
    planes, value = packed(options)
    shape = (options.batch, options.tokens, options.heads, options.width)
    assert planes.q == value.v == Rows(*shape)
    assert (planes.bias, planes.factors, planes.increasing) == (options.bias, 2, True)
    assert len(planes.ratios) + 1 == value.p_groups == len(options.p_scales)
    assert value.v_groups == len(options.v_scales)
    assert (planes.query_kind, planes.key_kind, value.value_kind) == (Kind.MASKED,) * 3


def test_scalars_travel_as_an_argument():
    after = through(Attention().module(), PASS)
    (call,) = bindings(after, "gsb.attention_planes")
    names = [name for name, _, _ in ops.spec_of(call).inputs()]
    scale, factor, bound = call.args[names.index("scalars")].value.numpy()
    assert scale == 0.125
    assert factor == np.float32(24**-0.5)
    # round(p / 0.25) >= 1 exactly where p > 0.125.
    assert bound == 0.125


PER_HEAD = 2.0 ** np.arange(2).reshape(2, 1, 1)


def head_masks(e, p):
    return e(op.multiply(rounded_mask(e, p, 0.25), const(PER_HEAD)))


def test_scales_per_head():
    packed(Attention(), superpose=head_masks)


def constant_bound(e, p):
    return e(op.astype(e(op.greater_equal(p, const(0.2))), "float32"))


def masks_in_another_order(e, p):
    top = e(op.multiply(e(op.max(p)), const(0.7)))
    first = e(op.multiply(e(op.astype(e(op.greater(p, top)), "float32")), const(4)))
    return e(op.add(first, constant_bound(e, p)))


@pytest.mark.parametrize("superpose", [constant_bound, masks_in_another_order])
def test_other_spellings_of_the_masks(superpose):
    planes, value = packed(Attention(), superpose)
    assert planes.strict
    assert value.p_groups == (1 if superpose is constant_bound else 2)


def test_a_factor_that_divides_by_a_power_of_two():
    assert module_of_scores(lambda e, x: e(op.divide(x, const(4)))) == {"gsb.attention_planes": 1}


def test_no_factor_at_all():
    assert module_of_scores(lambda e, x: x) == {"gsb.attention_planes": 1}


def test_a_factor_that_divides_by_another_number_stays_whole():
    """x / 3 is not x * (1 / 3)."""
    assert module_of_scores(lambda e, x: e(op.divide(x, const(3)))) == {}


def module_of_scores(factor, bias=None, axis=3):
    """How many attention_planes come of scores that are treated so; the rest must stay right."""

    def build(e, q, k, v):
        q, k, v = (e(op.sign(split_heads(e, x, 2, 24))) for x in (q, k, v))
        x = factor(e, e(op.matmul(q, e(op.permute_dims(k, [0, 1, 3, 2])))))
        p = e(op.nn.softmax(x, axis=axis))
        if bias is not None:
            p = e(op.add(p, const(bias)))
        return merge_heads(e, e(op.matmul(constant_bound(e, p), v)))

    options = Attention()
    before = recognised(options.inputs, build)
    after = assert_rewrites(PASS, before, inputs=options.arrays())
    if operators(after)["gsb.attention_planes"] == 0:
        assert_leaves_alone(PASS, before)
    return {k: n for k, n in operators(after).items() if k == "gsb.attention_planes"}


BIAS = (np.random.default_rng(5).random((2, 5, 5)) / 8).astype(np.float32)


@pytest.mark.parametrize("bias", [BIAS, BIAS[0], BIAS[None], BIAS[:1]], ids=lambda b: str(b.shape))
def test_biases_of_all_heads_or_of_each(bias):
    assert module_of_scores(lambda e, x: x, bias=bias)


@pytest.mark.parametrize(
    "bias", [BIAS[0, 0], BIAS[0, :, :1], np.stack([BIAS] * 2)], ids=["key", "query", "batch"]
)
def test_biases_of_another_shape_stay_whole(bias):
    assert not module_of_scores(lambda e, x: x, bias=bias)


def test_a_softmax_over_queries_stays_whole():
    assert not module_of_scores(lambda e, x: x, axis=2)


def test_a_live_factor_stays_whole():
    assert not module_of_scores(lambda e, x: e(op.multiply(x, e(op.mean(x)))))


# What does not match: PackMatmul packs it, and the numbers stay ---------------------------------


def static_masks(e, p):
    """BHViT: three bounds that are numbers."""
    levels = e(op.clip(e(op.round(e(op.multiply(p, const(3))))), 0, 3))
    return e(op.multiply(levels, const(0.25)))


def row_maximum(e, p):
    top = e(op.multiply(e(op.max(p, axis=3, keepdims=True)), const(0.7)))
    moving = e(op.astype(e(op.greater(p, top)), "float32"))
    return e(op.add(rounded_mask(e, p, 0.25), moving))


def ratio_above_one(e, p):
    top = e(op.multiply(e(op.max(p)), const(1.5)))
    moving = e(op.astype(e(op.greater(p, top)), "float32"))
    return e(op.add(rounded_mask(e, p, 0.25), moving))


def below_a_ratio(e, p):
    top = e(op.multiply(e(op.max(p)), const(0.7)))
    moving = e(op.astype(e(op.less(p, top)), "float32"))
    return e(op.add(rounded_mask(e, p, 0.25), moving))


def no_base(e, p):
    top = e(op.multiply(e(op.max(p)), const(0.7)))
    return e(op.astype(e(op.greater(p, top)), "float32"))


def masks_of_two_tensors(e, p):
    other = e(op.multiply(p, const(-1)))
    return e(op.add(constant_bound(e, p), constant_bound(e, other)))


def signs_of_p(e, p):
    return e(op.sign(e(op.subtract(p, const(0.2)))))


@pytest.mark.parametrize(
    "superpose",
    [
        *(static_masks, row_maximum, ratio_above_one, below_a_ratio),
        *(no_base, masks_of_two_tensors, signs_of_p),
    ],
)
def test_other_superpositions_are_left_for_pack_matmul(superpose):
    options = Attention(v_scales=(0.5,))
    before = options.module(superpose)
    assert_leaves_alone(PASS, before)
    after = through(before, PASS, PackMatmul())
    assert operators(after)["gsb.batch_matmul"] == 2
    arrays = options.arrays()
    np.testing.assert_array_equal(run_module(after, *arrays)[0], run_module(before, *arrays)[0])


def test_keys_that_are_turned_before_their_sign_are_packed_by_pack_matmul():
    options = Attention(key_sign_first=False)
    before = options.module()
    assert_leaves_alone(PASS, before)
    after = through(before, PASS, PackMatmul())
    assert operators(after)["gsb.batch_matmul"] == 2
    arrays = options.arrays()
    np.testing.assert_array_equal(run_module(after, *arrays)[0], run_module(before, *arrays)[0])


def test_scales_per_row_stay_whole():
    scale = 2.0 ** np.arange(5)[:, None]
    superpose = lambda e, p: e(op.multiply(rounded_mask(e, p, 0.25), const(scale)))  # noqa: E731
    assert_leaves_alone(PASS, Attention().module(superpose))


def test_fewer_keys_than_queries_stay_whole():
    def build(e, q, k, v):
        q, k, v = (e(op.sign(split_heads(e, x, 2, 24))) for x in (q, k, v))
        p = e(op.nn.softmax(e(op.matmul(q, e(op.permute_dims(k, [0, 1, 3, 2])))), axis=3))
        return merge_heads(e, e(op.matmul(constant_bound(e, p), v)))

    before = recognised({"q": (2, 5, 48), "k": (2, 3, 48), "v": (2, 3, 48)}, build)
    assert operators(before)["gsb.matmul"] == 2
    assert_leaves_alone(PASS, before)


def test_values_by_another_ratio_below_than_above_stay_whole():
    def values(e, v):
        high = e(op.greater(v, e(op.multiply(e(op.max(v)), const(0.7)))))
        low = e(op.less(v, e(op.multiply(e(op.min(v)), const(0.9)))))
        mask = e(op.add(e(op.astype(high, "float32")), e(op.astype(low, "float32"))))
        return e(op.add(e(op.sign(v)), e(op.sign(e(op.multiply(v, mask))))))

    options = Attention()

    def build(e, q, k, v):
        q, k, v = (split_heads(e, x, 2, 24) for x in (q, k, v))
        p = options.scores(e, q, k)
        return merge_heads(e, e(op.matmul(gsb_attention(e, p), values(e, v))))

    assert_leaves_alone(PASS, recognised(options.inputs, build))


def test_a_product_without_softmax_stays():
    def build(e, x):
        heads = split_heads(e, x, 2, 24)
        scores = e(
            op.matmul(e(op.sign(heads)), e(op.permute_dims(e(op.sign(heads)), [0, 1, 3, 2])))
        )
        mask = e(op.astype(e(op.greater(scores, const(0))), "float32"))
        return e(op.matmul(mask, e(op.sign(heads))))

    assert_leaves_alone(PASS, recognised({"x": (2, 5, 48)}, build))


def test_permuting_the_heads_of_everything_permutes_the_result():
    options = replace(Attention(), bias=False)
    module = through(options.module(), PASS)
    arrays = options.arrays()

    def swapped(x):
        return x.reshape(2, 5, 2, 24)[:, :, ::-1].reshape(2, 5, 48)

    one, other = (run_module(module, *a)[0] for a in (arrays, [swapped(a) for a in arrays]))
    np.testing.assert_array_equal(swapped(one), other)
    np.testing.assert_array_equal(run_module(module, *arrays[:2], quarters(2, 5, 48) * 0)[0], 0)
