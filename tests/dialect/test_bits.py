"""The bit convention, element by element, against a plain reading of its description."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import (
    Rows,
    pack_rows,
    pack_weight,
    pad_columns,
    pad_weight_columns,
    padded_tokens,
    product,
    retile_weight,
    signed,
    unpack_rows,
    unpack_weight,
    words,
)

WIDTHS = [1, 24, 31, 32, 33, 63, 64, 65]


def random_plane(rows, number=0):
    rng = np.random.default_rng(number)
    return rng.random((rows.batch, rows.tokens, rows.features)) < 0.5


def bit(packed, rows, batch, token, group, element):
    word = packed[batch, group * -(-rows.width // 32) + element // 32, token]
    return (int(word) >> (element % 32)) & 1


@pytest.mark.parametrize(("width", "count"), [(0, 0), (1, 1), (32, 1), (33, 2), (64, 2), (65, 3)])
def test_words_that_hold_a_width(width, count):
    assert words(width) == count


@pytest.mark.parametrize(("tokens", "padded"), [(1, 16), (16, 16), (17, 32), (198, 208)])
def test_tokens_are_padded_to_sixteen(tokens, padded):
    assert padded_tokens(tokens) == padded


@pytest.mark.parametrize("width", WIDTHS)
def test_every_bit_lies_where_the_convention_says(width):
    rows = Rows(2, 3, 2, width)
    plane = random_plane(rows)
    packed = pack_rows(plane, rows)
    assert packed.dtype == np.uint32
    assert packed.shape == rows.packed_shape == (2, 2 * words(width), 16)
    by_group = plane.reshape(2, 3, 2, width)
    for at in np.ndindex(by_group.shape):
        assert bit(packed, rows, *at) == by_group[at]


@pytest.mark.parametrize("width", WIDTHS)
def test_bits_beyond_the_width_are_zero(width):
    rows = Rows(1, 3, 2, width)
    packed = pack_rows(np.ones((1, 3, rows.features), bool), rows)
    counted = np.bitwise_count(packed[:, :, :3]).reshape(2, -1, 3).sum(1)
    np.testing.assert_array_equal(counted, width)


@seed(0)
@settings(max_examples=60, deadline=None, database=None)
@given(
    batch=st.integers(1, 4),
    tokens=st.integers(1, 35),
    groups=st.integers(1, 3),
    width=st.integers(1, 70),
    garbage=st.integers(0, 2**32 - 1),
)
def test_unpacking_inverts_packing_whatever_the_padding_tokens_hold(
    batch, tokens, groups, width, garbage
):
    rows = Rows(batch, tokens, groups, width)
    plane = random_plane(rows, number=width)
    packed = pack_rows(plane, rows)
    packed[:, :, tokens:] = garbage
    np.testing.assert_array_equal(unpack_rows(packed, rows), plane)


@seed(0)
@settings(max_examples=60, deadline=None, database=None)
@given(
    columns=st.integers(1, 70),
    groups=st.integers(1, 3),
    width=st.integers(1, 70),
    tile=st.sampled_from([1, 4, 32, 64]),
)
def test_weights_come_back_and_padding_columns_are_zero(columns, groups, width, tile):
    rng = np.random.default_rng(columns)
    plane = rng.random((columns, groups * width)) < 0.5
    packed = pack_weight(plane, groups=groups, column_tile=tile)
    tiles = -(-columns // tile)
    assert packed.shape == (tiles, groups * words(width), tile)
    shape = {"groups": groups, "width": width}
    np.testing.assert_array_equal(unpack_weight(packed, columns=columns, **shape), plane)
    padded = unpack_weight(packed, columns=tiles * tile, **shape)
    assert not padded[columns:].any()


@pytest.mark.parametrize(("before", "after"), [(32, 64), (64, 32), (64, 128), (128, 32)])
@pytest.mark.parametrize("columns", [1, 32, 64, 70, 128, 160])
def test_weights_in_other_tiles_are_as_if_packed_in_them(columns, before, after):
    plane = np.random.default_rng(columns).random((columns, 3 * 33)) < 0.5
    packed, expected = (pack_weight(plane, groups=3, column_tile=t) for t in (before, after))
    found = retile_weight(packed, columns=columns, column_tile=after)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous


def test_weights_and_activations_agree_on_the_order_of_words():
    rows = Rows(1, 4, 3, 33)
    plane = random_plane(rows)
    weight = pack_weight(plane[0], groups=3, column_tile=4)
    np.testing.assert_array_equal(weight[0], pack_rows(plane, rows)[0, :, :4])


def test_columns_are_spread_over_whole_words():
    rows = Rows(1, 1, 2, 33)
    values = np.arange(66, dtype=np.int32)
    spread = pad_columns(values, rows, fill=-1).reshape(2, 64)
    np.testing.assert_array_equal(spread[:, :33], values.reshape(2, 33))
    assert (spread[:, 33:] == -1).all()
    assert spread.dtype == np.int32


def test_weight_rows_are_spread_like_columns():
    rows = Rows(1, 1, 2, 33)
    plane = np.random.default_rng(0).random((66, 5)) < 0.5
    spread = pad_weight_columns(plane, rows)
    for k in range(5):
        np.testing.assert_array_equal(spread[:, k], pad_columns(plane[:, k], rows))


def test_signs_of_planes():
    bits, nonzero = np.array([True, True, False, False]), np.array([True, False, True, False])
    np.testing.assert_array_equal(signed(bits, None), [1, 1, -1, -1])
    np.testing.assert_array_equal(signed(bits, nonzero), [1, 0, -1, 0])


def test_elements_of_a_shape():
    assert product(()) == 1
    assert product((2, 3, 4)) == 24
    assert product((2**20, 2**20)) == 2**40
