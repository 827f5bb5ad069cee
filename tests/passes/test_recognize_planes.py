"""Products and sums of planes are recognised, with their scales; what is none of these stays.

Scales are powers of two unless a test is about rounding, so every product is exact in float32 in
any order, and the numbers before and after are compared bit for bit.
"""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.passes.recognize_planes import RecognizePlanes
from gsb_tvm.passes.rewriting import literal
from gsb_tvm.testing import assert_rewrites, module_of, operators
from tests.passes.graphs import F, const, gsb_attention, gsb_values
from tests.passes.recognition import (
    K,
    assert_stays,
    dense,
    inputs,
    planes,
    product,
    recognised,
    weight,
)
from tests.passes.spellings import SIGNS, sign

# Products ---------------------------------------------------------------------------------------


def test_the_module_after_is_a_plane_and_a_product():
    w = weight(33)

    def expected(emit, x):
        plane = emit(ops.sign(x, 0))
        signs, scale = const(np.sign(w)), const(0.5)
        return emit(ops.matmul([plane], [const(0.25)], [signs], [scale]))

    before = dense(lambda e, x: e(op.multiply(sign(e, x), const(0.25))))
    assert_rewrites(RecognizePlanes(), before, module_of({"x": (2, 3, 33)}, expected))


def test_a_scale_times_a_scale_is_rounded_once():
    before = dense(lambda e, x: e(op.multiply(sign(e, x), const(0.3))), w=weight(33, scale=0.7))
    # 33 products and sums of float32 against one: 34 roundings of at most 33 * 0.21.
    recognised(before, inputs(2, 3, 33), tolerance=34 * 2.0**-23)


# Sums of planes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "tokens", "width"), [(1, 5, 24), (4, 7, 64)])
def test_superposed_attention_times_superposed_values(batch, tokens, width):
    shapes = {"p": (batch, 2, tokens, tokens), "v": (batch, 2, tokens, width)}
    module = module_of(shapes, lambda e, p, v: e(op.matmul(gsb_attention(e, p), gsb_values(e, v))))
    rng = np.random.default_rng(0)
    v = rng.standard_normal(shapes["v"]).astype(F)
    v[rng.random(v.shape) < 0.1] = 0
    after = recognised(module, rng.random(shapes["p"]).astype(F), v)
    assert [len(part.fields) for part in product(after).args] == [3, 3, 3, 3]
    scales = [[float(s.value.numpy()) for s in product(after).args[i].fields] for i in (1, 3)]
    assert scales == [[0.25, 0.5, 2.0], [0.5, 0.25, 4.0]]
    # One sign of v, though the graph reads it three times; a mask for each comparison.
    assert sorted(planes(after)) == ["mask gt"] * 5 + ["mask lt"] * 2 + ["sign 0"]
    assert operators(after)["relax.max"] == 2


def test_differences_of_planes_keep_their_sign():
    """BHViT: (base - T1) + (T1 - T2) * a2, and T1 is one plane."""

    def spell(e, x):
        base, t1, t2 = (
            e(op.astype(e(op.greater(x, const(b))), "float32")) for b in (-0.5, 0.5, 1.0)
        )
        first = e(op.subtract(base, t1))
        return e(op.add(first, e(op.multiply(e(op.subtract(t1, t2)), const(2)))))

    after = recognised(dense(spell), inputs(2, 3, 33))
    scales = [float(s.value.numpy()) for s in product(after).args[1].fields]
    assert scales == [1, 1, -2]


# Constants --------------------------------------------------------------------------------------


def affine(e, x):
    return e(op.add(sign(e, x), const(0.5)))


def affine_levels(e, x):
    return e(op.where(e(op.greater(x, const(0))), const(1), const(-0.5)))


def bi_vit(e, x):
    """a * (sign - z)."""
    return e(op.multiply(e(op.subtract(sign(e, x), const(0.25))), const(0.5)))


@pytest.mark.parametrize("spell", [affine, affine_levels, bi_vit])
def test_constants_before_weights_follow_the_product(spell):
    after = recognised(dense(spell), inputs(2, 3, 33))
    assert operators(after)["relax.add"] == 1


def test_constants_that_cancel_leave_a_linear_sum():
    spell = lambda e, x: e(op.subtract(affine(e, x), const(0.5)))  # noqa: E731
    recognised(dense(spell), inputs(2, 3, 33))


def test_straight_through_residue_is_the_front_ends():
    """(sign - f) + f is cancelled before the passes; here it is float arithmetic."""

    def spell(e, x):
        f = e(op.clip(x, -1, 1))
        return e(op.add(e(op.subtract(sign(e, x), f)), f))

    assert_stays(dense(spell))


# Scales -----------------------------------------------------------------------------------------


def scaled(scale):
    return lambda e, x: e(op.multiply(sign(e, x), const(scale)))


def test_scales_per_token_and_per_column():
    per_token = 2.0 ** np.arange(3)[:, None]
    w = weight(33) * 2.0 ** np.arange(7)
    after = recognised(dense(scaled(per_token), w=w.astype(F)), inputs(2, 3, 33))
    _, (s,), _, (t,) = (part.fields for part in product(after).args)
    assert s.value.numpy().shape == (3, 1)
    assert t.value.numpy().shape == (1, 7)


def test_scales_along_the_contracted_axis_stay():
    assert_stays(dense(scaled(2.0 ** np.arange(33))))


def test_scales_that_repeat_one_number_are_scalars():
    after = recognised(dense(scaled(np.full(33, 0.5))), inputs(2, 3, 33))
    assert product(after).args[1].fields[0].value.numpy().shape == ()


def attention_scores(q_scale, k_scale, scale_first):
    """q . k of (2, 5, 2 heads, 24), scales before or after the move to heads."""

    def heads(e, x, scale):
        x = e(op.sign(x))
        x = e(op.multiply(x, const(scale))) if scale_first else x
        x = e(op.permute_dims(e(op.reshape(x, (2, 5, 2, 24))), [0, 2, 1, 3]))
        return x if scale_first else e(op.multiply(x, const(scale)))

    def build(e, q, k):
        left, right = heads(e, q, q_scale), heads(e, k, k_scale)
        return e(op.matmul(left, e(op.permute_dims(right, [0, 1, 3, 2]))))

    return module_of({"q": (2, 5, 48), "k": (2, 5, 48)}, build)


PER_HEAD = np.array([[[0.5]], [[2.0]]])


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (attention_scores(0.5, 2, True), [(), ()]),
        (attention_scores(PER_HEAD, PER_HEAD, False), [(1, 2, 1, 1), (1, 2, 1, 1)]),
        (attention_scores(np.repeat([0.5, 4], 24), 2, True), [(1, 2, 1, 1), ()]),
        (attention_scores(2.0 ** np.arange(5)[:, None], 1, True), [(1, 1, 5, 1), ()]),
        (attention_scores(1, 2.0 ** np.arange(5)[:, None], True), [(), (1, 1, 1, 5)]),
    ],
    ids=["scalar", "head", "channel of one head", "token of q", "token of k"],
)
def test_scales_travel_through_views(module, shapes):
    after = recognised(module, inputs(2, 5, 48), inputs(2, 5, 48, number=1))
    _, (s,), _, (t,) = (part.fields for part in product(after).args)
    assert [np.squeeze(a.value.numpy()).shape for a in (s, t)] == [
        tuple(n for n in shape if n > 1) for shape in shapes
    ]


@pytest.mark.parametrize("side", [0, 1])
def test_channel_scales_through_views_stay(side):
    scales = [1, 1]
    scales[side] = 2.0 ** (np.arange(48) % 24)
    assert_stays(attention_scores(*scales, True))


def test_a_split_hands_its_planes_on():
    def build(e, x):
        parts = e(op.split(e(op.sign(x)), 2, axis=2))
        left, right = (e(relax.TupleGetItem(parts, i)) for i in range(2))
        return e(op.matmul(left, e(op.permute_dims(right, [0, 2, 1]))))

    recognised(module_of({"x": (2, 5, 66)}, build), inputs(2, 5, 66))


# Operands ---------------------------------------------------------------------------------------


def test_weights_with_zeros_and_column_scales():
    w = weight(33) * 2.0 ** np.arange(7, dtype=F)
    w[3, 2] = w[0, 6] = 0
    w[:, 4] = 0
    recognised(dense(sign, w=w.astype(F)), inputs(2, 3, 33))


def three_levels():
    w = weight(33)
    w[0, 0] *= 0.5
    return w


def spread_too_far():
    w = weight(33)
    w[0, 0] *= F(1.0002)
    return w


@pytest.mark.parametrize("w", [three_levels(), spread_too_far(), weight(1)], ids=len)
def test_weights_of_other_levels_stay(w):
    assert_stays(dense(sign, w=w, k=len(w)))


def test_a_float_operand_stays():
    assert_stays(dense(lambda e, x: e(op.exp(x))))
    assert_stays(module_of({"x": (3, 4), "y": (4, 5)}, lambda e, x, y: e(op.matmul(sign(e, x), y))))


def test_vectors_stay():
    """A vector's one axis is contracted, whatever scale it has."""

    def build(e, x, y):
        scaled_y = e(op.multiply(sign(e, y), const(2.0 ** np.arange(4))))
        return e(op.matmul(sign(e, x), scaled_y))

    assert_stays(module_of({"x": (3, 4), "y": (4,)}, build))


def test_sums_that_broadcast_stay():
    def build(e, x, y):
        return e(op.matmul(e(op.add(sign(e, x), sign(e, y))), literal(weight(4))))

    assert_stays(module_of({"x": (2, 3, 4), "y": (3, 4)}, build))


@seed(0)
@settings(max_examples=10, deadline=None, database=None)
@given(
    spells=st.lists(st.sampled_from(list(SIGNS)), min_size=1, max_size=3),
    scales=st.lists(st.sampled_from([0.25, 0.5, 1.0, -2.0]), min_size=3, max_size=3),
    k=st.sampled_from(K),
)
def test_any_sum_of_scaled_signs_gives_the_same_numbers(spells, scales, k):
    def spell(e, x):
        total = None
        for i, (one, scale) in enumerate(zip(spells, scales, strict=False)):
            shifted = e(op.add(x, const(i / 4)))
            term = e(op.multiply(one(e, shifted), const(scale)))
            total = term if total is None else e(op.add(total, term))
        return total

    x = np.random.default_rng(k).integers(-4, 5, (2, 3, k)).astype(F) / 4
    after = recognised(dense(spell, k), x)
    assert len(product(after).args[0].fields) == len(spells)
