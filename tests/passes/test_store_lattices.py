"""Weights that are integers times a scale are stored as int8, bit for bit; others stay."""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tvm.relax import op

from gsb_tvm.passes.store_lattices import SMALLEST, StoreLattices, lattice
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators
from tests.passes.graphs import bindings, const, quarters

SHAPE = (256, 256)


def levels(*shape, number=0, low=-128, high=127):
    return np.random.default_rng(number).integers(low, high + 1, shape).astype(np.float32)


def scaled(scale, *shape, number=0, **bounds):
    return levels(*shape, number=number, **bounds) * np.asarray(scale, np.float32)


def product(w):
    build = lambda e, x: e(op.matmul(x, const(w)))  # noqa: E731
    return module_of({"x": (2, w.shape[0])}, build)


@pytest.mark.parametrize(
    "w",
    [
        scaled(0.0123, *SHAPE),
        scaled(np.linspace(0.01, 0.02, 256)[None], *SHAPE),
        scaled(np.linspace(0.01, 0.02, 256)[:, None], *SHAPE),
    ],
    ids=["one scale", "columns", "rows"],
)
def test_products_read_int8(w):
    x = np.random.default_rng(1).standard_normal((2, 256)).astype(np.float32)
    after = assert_rewrites(StoreLattices(), product(w), inputs=[x])
    assert operators(after) == {"relax.astype": 1, "relax.multiply": 1, "relax.matmul": 1}
    stored, scale = bindings(after, "relax.astype")[0].args[0], bindings(after, "relax.multiply")
    assert stored.value.numpy().dtype == np.int8
    found = stored.value.numpy().astype(np.float32) * scale[0].args[1].value.numpy()
    np.testing.assert_array_equal(found, w)


def test_convolutions_with_one_scale_a_filter():
    """The strided 16 x 16 patches of the first layer."""
    w = scaled(np.linspace(0.01, 0.02, 8)[:, None, None, None], 8, 3, 16, 16)
    build = lambda e, x: e(op.nn.conv2d(x, const(w), strides=16))  # noqa: E731
    before = module_of({"x": (1, 3, 32, 32)}, build)
    after = assert_rewrites(StoreLattices(), before, inputs=[quarters(1, 3, 32, 32)])
    assert [int(n) for n in bindings(after, "relax.nn.conv2d")[0].attrs.strides] == [16, 16]


def one_off(scale=0.0123):
    w = scaled(scale, *SHAPE)
    w[3, 4] = np.nextafter(w[3, 4], np.float32(9))
    return w


@pytest.mark.parametrize(
    "w",
    [
        np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32),
        one_off(), scaled(0.01, *SHAPE, low=-300, high=300), scaled(0.01, 8, SMALLEST // 8 - 1),
        np.zeros(SHAPE, np.float32),
    ],
    ids=["floats", "one element off", "too many levels", "too small", "zeros"],
)  # fmt: skip
def test_what_is_no_lattice_stays(w):
    assert_leaves_alone(StoreLattices(), product(w))


def test_constants_of_other_operators_stay():
    w = const(scaled(0.01, *SHAPE))
    assert_leaves_alone(StoreLattices(), module_of({"x": SHAPE}, lambda e, x: e(op.add(x, w))))


@seed(0)
@settings(max_examples=60, deadline=None, database=None)
@given(
    scale=st.floats(2.0**-20, 2.0**20, width=32),
    largest=st.integers(1, 127),
    number=st.integers(0, 999),
)
def test_a_lattice_is_exact_or_nothing(scale, largest, number):
    """Also where the smallest level is not 1, so that the scale has to be found by division."""
    w = scaled(scale, 40, 30, number=number, low=-largest, high=largest)
    found = lattice(w)
    if found is not None:
        stored, step = found
        np.testing.assert_array_equal(stored.astype(np.float32) * step, w)
    if largest >= 4:  # 1200 draws of few levels hold a power of two in every slice
        assert found is not None
