"""The algebra of superposed tensors on plain numbers, and binary weights by value."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.specs import Kind
from gsb_tvm.passes import superposition as sp
from gsb_tvm.passes.superposition import Superposed, Term

K = [2, 31, 32, 33, 63, 64, 65]


def value(x, planes):
    """What ``x`` is where its planes hold the arrays ``planes``."""
    return sum(t.scale * planes[t.plane] for t in x.terms) + x.constant


def example():
    rng = np.random.default_rng(0)
    planes = {"p": rng.choice([-1.0, 1.0], (3, 4)), "m": rng.choice([0.0, 1.0], (3, 4))}
    x = Superposed((Term("p", Kind.SIGN, np.float32([[2], [3], [4]])),), np.float32(0.5))
    y = Superposed((Term("m", Kind.MASK, np.float32([1, 2, 3, 4])),), np.float32([0, 0, 1, 0]))
    return planes, x, y


def test_sums_scales_and_shifts_are_those_of_the_values():
    planes, x, y = example()
    a, b = value(x, planes), value(y, planes)
    np.testing.assert_array_equal(value(sp.added(x, y), planes), a + b)
    factor = np.float32([[0.5], [2], [4]])
    np.testing.assert_array_equal(value(sp.scaled(x, factor, np.multiply), planes), a * factor)
    np.testing.assert_array_equal(value(sp.scaled(y, factor, np.divide), planes), b / factor)
    np.testing.assert_array_equal(value(sp.shifted(x, np.float32(3)), planes), a + 3)


def test_a_plane_of_both_operands_is_one_term():
    planes, x, y = example()
    twice = sp.added(sp.added(x, y), sp.scaled(x, np.float32(0.5), np.multiply))
    assert len(twice.terms) == 2
    expected = 1.5 * value(x, planes) + value(y, planes)
    np.testing.assert_array_equal(value(twice, planes), expected)


def test_kinds_and_scale_types_stay():
    _, x, _ = example()
    scaled = sp.scaled(x, np.float32(1 / 3), np.multiply)
    assert scaled.terms[0].kind is Kind.SIGN
    assert scaled.terms[0].scale.dtype == np.float32


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.full((2, 3), 7), ()),
        (np.broadcast_to([[1], [2]], (2, 3)), (2, 1)),
        (np.broadcast_to([1, 2, 3], (2, 3)), (1, 3)),
        (np.arange(6).reshape(2, 3), (2, 3)),
        (np.broadcast_to(np.arange(2).reshape(1, 2, 1, 1), (3, 2, 4, 5)), (1, 2, 1, 1)),
    ],
)
def test_compact_keeps_the_values_on_fewer_elements(array, shape):
    found = sp.compact(array.astype(np.float32))
    assert found.shape == shape
    np.testing.assert_array_equal(np.broadcast_to(found, array.shape), array)


def test_sums_of_masks():
    mask = sp.single("m", Kind.MASK)
    assert sp.added(mask, mask).is_mask_sum
    assert not sp.single("p", Kind.SIGN).is_mask_sum
    assert not sp.shifted(mask, np.float32(1)).is_mask_sum
    # Smaller than 1: a float times the sum may underflow to 0 where the float does not.
    assert not sp.scaled(mask, np.float32(0.5), np.multiply).is_mask_sum


def test_linear_means_without_a_constant():
    mask = sp.single("m", Kind.MASK)
    assert mask.is_linear
    assert not sp.shifted(mask, np.float32(-1)).is_linear


@pytest.mark.parametrize("scale", [1.0, 0.3, -2.0])
def test_a_mask_twice_minus_one_is_a_sign(scale):
    mask = sp.scaled(sp.single("m", Kind.MASK), np.float32(2 * scale), np.multiply)
    term, found = sp.sign_from_mask(sp.shifted(mask, np.float32(-scale)))
    assert term.plane == "m"
    assert found == np.float32(scale)


@pytest.mark.parametrize("constant", [0.0, 1.0, -0.5])
def test_other_shifts_of_a_mask_are_no_sign(constant):
    mask = sp.scaled(sp.single("m", Kind.MASK), np.float32(2), np.multiply)
    assert sp.sign_from_mask(sp.shifted(mask, np.float32(constant))) is None


@pytest.mark.parametrize("scale", [1.0, 0.3, -2.0])
def test_one_minus_a_mask_is_its_complement(scale):
    mask = sp.scaled(sp.single("m", Kind.MASK), np.float32(-scale), np.multiply)
    term, found = sp.scaled_complement(sp.shifted(mask, np.float32(scale)))
    assert term.plane == "m"
    assert found == np.float32(scale)
    assert sp.scaled_complement(mask) is None
    assert sp.scaled_complement(sp.shifted(mask, np.float32(2 * scale))) is None


def signs(k, columns=5, number=0):
    return np.random.default_rng(number).choice([-1, 1], (k, columns)).astype(np.float32)


def assert_weight(found, matrix, tolerance=0.0):
    plane = np.where(found.positive, 1, -1).astype(np.float32)
    if found.nonzero is not None:
        plane = plane * found.nonzero
    np.testing.assert_allclose(plane * found.scale, matrix, rtol=tolerance, atol=0)
    assert found.kind is (Kind.SIGN if (matrix != 0).all() else Kind.MASKED)


@pytest.mark.parametrize("k", K)
def test_columns_of_two_levels_are_binary(k):
    scale = np.float32([0.1, 0.2, 0.3, 1e-20, 1e20])
    assert_weight(sp.binary_weight(signs(k) * scale), signs(k) * scale)


@pytest.mark.parametrize("k", K)
def test_zeros_among_the_weights_are_a_masked_sign(k):
    matrix = signs(k) * np.float32(0.3)
    matrix[0, 0] = matrix[k - 1, 4] = 0
    assert_weight(sp.binary_weight(matrix), matrix)


def test_a_column_of_zeros_alone():
    """Also beside columns that carry straight-through residue."""
    for residue in (0.0, 1e-5):
        matrix = signs(8) * np.float32(0.3)
        matrix[0, 1] *= 1 + residue
        matrix[:, 2] = 0
        found = sp.binary_weight(matrix)
        assert np.isfinite(found.scale).all()
        assert_weight(found, matrix, tolerance=1e-4)


@seed(0)
@settings(max_examples=50, deadline=None, database=None)
@given(k=st.integers(2, 65), number=st.integers(0, 99), spread=st.floats(0, 2e-5))
def test_straight_through_residue_is_within_the_tolerance(k, number, spread):
    rng = np.random.default_rng(number)
    noise = (1 + rng.uniform(-spread, spread, (k, 5))).astype(np.float32)
    matrix = signs(k, number=number) * np.float32(0.3) * noise
    found = sp.binary_weight(matrix)
    np.testing.assert_allclose(found.scale, np.median(np.abs(matrix), axis=0), rtol=1e-6)
    assert_weight(found, matrix, tolerance=1e-4)


def three_levels():
    matrix = signs(8)
    matrix[3, 2] = 0.5
    return matrix


def just_outside():
    matrix = signs(8)
    matrix[3, 2] *= np.float32(1 + 2e-4)
    return matrix


def unequal_levels():
    return np.where(signs(8) > 0, np.float32(1), np.float32(-0.5))


@pytest.mark.parametrize(
    "matrix",
    [
        three_levels(), just_outside(), unequal_levels(),
        signs(1), signs(8).reshape(2, 4, 5), np.full((4, 2), np.nan, np.float32),
        signs(8) * np.float32(np.inf), signs(8)[:, 0],
    ],
    ids=[
        "three levels", "spread of 2e-4", "two levels of unequal size", "one row: anything is",
        "three axes", "nan", "infinite", "a vector",
    ],
)  # fmt: skip
def test_what_is_no_binary_weight(matrix):
    assert sp.binary_weight(matrix) is None
