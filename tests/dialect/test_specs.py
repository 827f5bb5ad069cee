"""Specs as text, their tensors, and the promises they make to kernels."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import (
    Binarize,
    Compare,
    Dense,
    Kind,
    Thresholds,
    decode,
    encode,
    plane,
    spread_of,
)
from tests.dialect.catalogue import SPECS


@pytest.mark.parametrize("name", SPECS)
def test_text_gives_the_spec_back(name):
    spec = SPECS[name]
    assert decode(encode(spec)) == spec
    assert encode(decode(encode(spec))) == encode(spec)


def test_different_specs_have_different_texts():
    assert len({encode(spec) for spec in SPECS.values()}) == len(SPECS)


@seed(0)
@settings(max_examples=60, deadline=None, database=None)
@given(bound=st.floats(width=32, allow_nan=False, allow_infinity=False), strict=st.booleans())
def test_bounds_survive_the_text_bit_for_bit(bound, strict):
    spec = Binarize(Rows(1, 1, 1, 1), Compare(Kind.MASK, bound, strict), norm=False, shift=False)
    found = decode(encode(spec)).compare.bound
    assert np.float32(found).tobytes() == np.float32(bound).tobytes()


@pytest.mark.parametrize("name", SPECS)
def test_tensors_are_named_once_and_have_elements(name):
    tensors = SPECS[name].inputs() + SPECS[name].outputs()
    names = [tensor[0] for tensor in tensors]
    assert len(set(names)) == len(names)
    assert all(all(extent > 0 for extent in shape) for _, shape, _ in tensors)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Kind.SIGN, ["a_bits"]),
        (Kind.MASK, ["a_bits"]),
        (Kind.MASKED, ["a_bits", "a_nonzero", "a_zeros"]),
    ],
)
def test_tensors_of_a_plane(kind, names):
    assert [name for name, _, _ in plane("a", kind, Rows(1, 2, 1, 33))] == names


@pytest.mark.parametrize("k", [1, 64, 2**14 - 1, 2**14, 2**16])
def test_thresholds_hold_every_dot_and_every_interval(k):
    thresholds = Thresholds(Rows(1, 1, 1, 8), Kind.MASKED)
    spec = Dense(Rows(1, 1, 1, k), Kind.SIGN, Kind.SIGN, 8, 32, thresholds=thresholds)
    dtypes = {name: np.dtype(dtype) for name, _, dtype in spec.inputs()}
    for prefix in ("", "zero_"):
        low = np.iinfo(dtypes[f"{prefix}lo"])
        assert low.min <= -k
        assert k < low.max  # the largest number marks the empty set
        assert 2 * k <= np.iinfo(dtypes[f"{prefix}width"]).max


def test_bits_are_computed_in_whole_words_and_whole_tiles():
    thresholds = Thresholds(Rows(1, 1, 3, 33), Kind.SIGN)
    spec = Dense(Rows(1, 1, 1, 8), Kind.SIGN, Kind.SIGN, 99, 128, thresholds=thresholds)
    assert spec.computed_columns == 3 * 64
    assert spec.padded_columns == 256
    floats = Dense(Rows(1, 1, 1, 8), Kind.SIGN, Kind.SIGN, 99, 32)
    assert (floats.computed_columns, floats.padded_columns) == (99, 128)


@seed(0)
@settings(max_examples=100, deadline=None, database=None)
@given(width=st.integers(1, 4096), scale=st.floats(-1e6, 1e6, width=32))
def test_spread_is_a_power_of_two_that_bounds_the_scores(width, scale):
    spread = spread_of(width, scale)
    assert spread & (spread - 1) == 0
    scores = np.array([-width, width], np.float32) * np.float32(scale)
    assert float(scores.max()) - float(scores.min()) <= spread
