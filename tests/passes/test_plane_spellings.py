"""Each spelling of a sign or a mask is recognised as one plane, or as nested ones.

Scales are powers of two unless a test is about rounding, so every product is exact in float32 in
any order, and the numbers before and after are compared bit for bit.
"""

import numpy as np
import pytest
from tvm.relax import op

from gsb_tvm.passes.rewriting import literal
from gsb_tvm.testing import module_of, operators
from tests.passes.graphs import F, const
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
from tests.passes.spellings import SIGNS, greater, rounding, sign, where

# Signs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spell", SIGNS, ids=lambda f: f.__name__)
def test_every_spelling_of_a_sign(spell):
    after = recognised(dense(spell), inputs(2, 3, 33))
    assert planes(after) == [SIGNS[spell]]
    left = {"relax.add"} if spell is rounding else set()
    assert set(operators(after)) == {"gsb.sign", "gsb.matmul", *left}


@pytest.mark.parametrize("k", K)
def test_signs_of_every_width(k):
    recognised(dense(sign, k), inputs(2, 3, k))


def test_rounding_ends_where_float32_says():
    """x + 1 rounds to 1 up to 2^-24, a tie; just above it is the next float."""
    edge = F(2.0**-24)
    x = np.array([edge, np.nextafter(edge, F(1)), np.nextafter(edge, F(0)), 0, -1, 1], F)
    recognised(dense(rounding, shape=(1, 6), w=weight(6)), x[None])


# Masks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("bound", [0.0, -0.3])
@pytest.mark.parametrize("compare", ["greater", "greater_equal", "less", "less_equal"])
def test_masks_of_every_comparison(compare, bound, mirrored):
    def spell(e, x):
        operands = (const(bound), x) if mirrored else (x, const(bound))
        return e(op.astype(e(getattr(op, compare)(*operands)), "float32"))

    after = recognised(dense(spell), inputs(2, 3, 33))
    kept = {"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le"}[compare]
    flipped = {"gt": "lt", "ge": "le", "lt": "gt", "le": "ge"}
    assert planes(after) == [f"mask {flipped[kept] if mirrored else kept}"]


@pytest.mark.parametrize("keepdims", [False, True])
def test_masks_against_an_extreme_of_the_tensor(keepdims):
    """With kept axes the bound has the rank of x and its extents are 1."""

    def spell(e, x):
        bound = e(op.multiply(e(op.max(x, keepdims=keepdims)), const(0.5)))
        return e(op.astype(e(op.less(bound, x)), "float32"))

    after = recognised(dense(spell), np.random.default_rng(0).random((2, 3, 33)).astype(F))
    assert planes(after) == ["mask gt"]


def test_where_with_levels_of_its_own_is_a_scaled_mask():
    spell = lambda e, x: e(op.where(e(op.greater(x, const(1))), const(0.5), const(0)))  # noqa: E731
    after = recognised(dense(spell), inputs(2, 3, 33))
    assert planes(after) == ["mask gt"]


@pytest.mark.parametrize("signed", [sign, where, greater])
def test_a_sign_whose_minus_is_set_to_zero_is_a_mask(signed):
    """torch: s = sign(x); s[s == -1] = 0."""

    def spell(e, x):
        s = signed(e, x)
        return e(op.where(e(op.equal(s, const(-1))), const(0), s))

    after = recognised(dense(spell), inputs(2, 3, 33))
    assert planes(after)[-1] == ("mask ge" if signed is where else "mask gt")


@pytest.mark.parametrize("clip_first", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_rounded_levels_are_nested_masks(levels, clip_first):
    """Half to even: 0.5 stays below level 1, 1.5 reaches level 2, 2.5 stays below level 3."""

    def spell(e, x):
        y = e(op.divide(e(op.add(x, const(0.5))), const(0.3)))
        for step in [(op.clip, 0, levels), (op.round,)][:: 1 if clip_first else -1]:
            y = e(step[0](y, *step[1:]))
        return y

    ties = np.array([s * F(0.3) - F(0.5) for s in np.arange(-0.5, 4, 0.5)], F)
    near = np.concatenate([np.nextafter(ties, F(9)), ties, np.nextafter(ties, F(-9))])
    x = np.concatenate([near, inputs(64 - near.size)])[None]
    after = recognised(dense(spell, shape=(1, 64), w=weight(64)), x)
    assert planes(after) == ["mask gt"] * levels


def clipped(low, high):
    return lambda e, x: e(op.clip(e(op.round(x)), low, high))


@pytest.mark.parametrize("bounds", [(0, 4), (-1, 1), (0, 1.5), (-128, 127)])
def test_rounding_to_other_levels_stays(bounds):
    assert_stays(dense(clipped(*bounds)))


def test_levels_behind_a_negative_factor_mask_the_product():
    spell = lambda e, x: clipped(0, 1)(e, e(op.multiply(x, const(-2))))  # noqa: E731
    after = recognised(dense(spell), inputs(2, 3, 33))
    assert operators(after)["relax.multiply"] == 1


def row_bound(e, x):
    return e(op.multiply(e(op.max(x, axis=[2], keepdims=True)), const(0.25)))


def unless_below(e, x):
    """BiViT: where(x < max / 4, 0, 1)."""
    return e(op.where(e(op.less(x, row_bound(e, x))), const(0), const(1)))


def one_minus_below(e, x):
    below = e(op.astype(e(op.less(x, row_bound(e, x))), "float32"))
    return e(op.subtract(const(1), below))


@pytest.mark.parametrize("spell", [unless_below, one_minus_below])
def test_one_minus_a_mask_is_the_mask_of_the_opposite(spell):
    after = recognised(dense(spell), inputs(2, 3, 33))
    assert "mask ge" in planes(after)
    assert [float(s.value.numpy()) for s in product(after).args[1].fields] == [1]


def test_a_masked_sign_reads_the_sign_of_its_source():
    def spell(e, x):
        mask = e(op.astype(e(op.greater(x, const(0.5))), "float32"))
        return e(op.sign(e(op.multiply(x, mask))))

    after = recognised(dense(spell), np.random.default_rng(0).standard_normal((2, 3, 33)).astype(F))
    assert planes(after) == ["mask gt", "sign 0"]


def test_a_small_scale_of_a_mask_may_underflow_and_is_kept():
    def spell(e, x):
        mask = e(op.astype(e(op.greater(x, const(-1))), "float32"))
        return e(op.sign(e(op.multiply(x, e(op.multiply(mask, const(2.0**-80)))))))

    x = np.full((1, 1, 4), 1e-30, F)
    after = recognised(dense(spell, shape=(1, 1, 4), w=weight(4)), x)
    assert operators(after)["relax.multiply"] == 2


def test_comparisons_that_broadcast_both_sides_stay():
    def build(e, x, y):
        mask = e(op.astype(e(op.greater(x, y)), "float32"))
        return e(op.matmul(mask, literal(weight(4))))

    assert_stays(module_of({"x": (2, 1, 4), "y": (1, 3, 1)}, build))


def test_comparisons_of_integers_stay():
    def build(e, x):
        whole = e(op.astype(x, "int64"))
        mask = e(op.astype(e(op.greater(whole, literal(np.int64(0)))), "float32"))
        return e(op.matmul(mask, literal(weight(4))))

    assert_stays(module_of({"x": (2, 3, 4)}, build))
