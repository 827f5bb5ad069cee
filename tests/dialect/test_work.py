"""The work of each operator, against counting: a product of ones and ones counts itself."""

import numpy as np
import pytest

from gsb_tvm.dialect import oracle
from gsb_tvm.dialect.bits import Rows, pack_rows, pack_weight
from gsb_tvm.dialect.planes import Kind
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Binarize,
    Dense,
    Patches,
    ValuePlanes,
)
from gsb_tvm.dialect.work import Bound, bound, bytes_touched, extents, floats, macs, shape_text
from tests.dialect.catalogue import SPECS, arguments

MASK, SIGN = Kind.MASK, Kind.SIGN


def ones(rows):
    return pack_rows(np.ones((rows.batch, rows.tokens, rows.features), bool), rows)


def total(spec, *inputs):
    (y,) = oracle.compute(spec, [np.asarray(array) for array in inputs])
    return int(y.astype(np.float64).sum())


@pytest.mark.parametrize(("features", "columns"), [(1, 1), (33, 7), (64, 40)])
def test_dense(features, columns):
    rows = Rows(2, 5, 1, features)
    spec = Dense(rows, MASK, SIGN, columns, 32)
    weight = pack_weight(np.ones((columns, features), bool), groups=1, column_tile=32)
    assert macs(spec) == total(spec, ones(rows), weight)


def test_batch_matmul_counts_pairs_of_planes():
    a, b = Rows(2, 3, 1, 33), Rows(2, 4, 1, 33)
    spec = BatchMatmul(a, b, (MASK, MASK), (MASK, MASK, MASK))
    planes = [*[ones(a)] * 2, *[ones(b)] * 3]
    assert macs(spec) == total(spec, *planes, np.ones(2, np.float32), np.ones(3, np.float32))


def test_attention_value_counts_its_base_planes():
    rows = Rows(2, 5, 3, 24)
    spec = AttentionValue(rows, SIGN, 2, 2, shift=False, compare=None)
    masks = np.stack([ones(spec.p), np.zeros(spec.p.packed_shape, np.uint32)])
    empty = np.zeros((1, *rows.packed_shape), np.uint32)
    scale = np.ones((2, 3), np.float32)
    assert macs(spec) == total(spec, masks, ones(rows), empty, scale, scale)


def test_attention_planes_are_the_products_of_all_queries_and_keys():
    spec = AttentionPlanes(Rows(2, 5, 3, 24), SIGN, SIGN, 1, True, 64, False, True, ())
    query = key = np.ones((2, 3, 5, 24))
    assert macs(spec) == int(np.einsum("bhid,bhjd->", query, key))
    assert extents(spec) == (2, 3, 5, 24, 5)


def test_patches_are_one_row_each_and_constant_tokens_none():
    spec = Patches(2, 3, (9, 10), (4, 5), 7, lattice=False, bias=False, prefix=1)
    image, weight = (np.ones(shape, np.float32) for _, shape, _ in spec.inputs()[:2])
    assert macs(spec) == total(spec, image, weight, np.zeros((1, 7), np.float32))
    assert bound(spec) is Bound.MULTIPLYING


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("dense_signs", "2 x 5 x 66 x 40 + residual"),
        ("dense_mask", "2 x 5 x 66 x 33 to floats"),
        ("dense_bits", "2 x 5 x 66 x 48 to bits"),
        ("dense_wide", "2 x 16384 x 1 to bits"),
        ("attention_planes", "2 x 2 x 5 x 24 x 5 spread 64"),
        ("batch_matmul", "2 x 3 x 33 x 4"),
        ("binarize", "2 x 5 x 66"),
    ],
)
def test_shapes_for_people(name, text):
    assert shape_text(SPECS[name]) == text


@pytest.mark.parametrize("name", SPECS)
def test_bytes_and_floats_are_those_of_the_arrays(name):
    spec = SPECS[name]
    inputs = arguments(spec)
    arrays = [*inputs, *oracle.compute(spec, inputs)]
    assert bytes_touched(spec) == sum(array.nbytes for array in arrays)
    assert floats(spec) == max(
        (array.size for array in arrays if array.dtype == np.float32), default=0
    )


@pytest.mark.parametrize("name", SPECS)
def test_only_what_looks_at_each_number_has_no_products(name):
    looks = isinstance(SPECS[name], Binarize | ValuePlanes)
    assert (macs(SPECS[name]) == 0) == looks
    assert (bound(SPECS[name]) is Bound.READING) == looks
    assert (bound(SPECS[name]) is Bound.MULTIPLYING) == isinstance(SPECS[name], Patches)
