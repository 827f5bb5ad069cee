"""What the packing passes share: where a plane comes from, and constants as columns."""

import numpy as np
import pytest
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Compare, Dense, Kind, Operand
from gsb_tvm.passes.packing import (
    column_vector,
    own_source,
    plane_source,
    product_scale,
    step_operand,
    strict_bound,
    token_source,
)
from gsb_tvm.passes.rewriting import rewrite
from gsb_tvm.testing import module_of
from tests.passes.graphs import const, quarters, split_heads

ROWS = Rows(2, 5, 2, 24)


def seen_by_a_pass(build, look, shape=(2, 5, 48)):
    """``look(result, graph)`` at the result of ``main``."""
    found = []

    def visit(var, value, graph):
        bound = graph.emit(value)
        found.append(look(bound, graph))
        return bound

    rewrite(module_of({"x": shape}, build)["main"], visit)
    return found[-1]


@pytest.mark.parametrize(
    ("spell", "compare"),
    [
        (lambda x: ops.sign(x, -1), Compare(Kind.SIGN, 0.0, strict=True)),
        (lambda x: ops.sign(x, 0), Compare(Kind.MASKED, 0.0, strict=True)),
        (lambda x: ops.sign(x, 1), Compare(Kind.SIGN, 0.0, strict=False)),
        (lambda x: ops.mask(x, const(0.25), "gt"), Compare(Kind.MASK, 0.25, strict=True)),
        (lambda x: ops.mask(x, const([[0.25]]), "ge"), Compare(Kind.MASK, 0.25, strict=False)),
    ],
)
def test_comparisons_with_numbers_have_a_source(spell, compare):
    source = seen_by_a_pass(lambda e, x: e(spell(x)), plane_source)
    assert str(source.x) == "x"
    assert source.compare == compare


@pytest.mark.parametrize(
    "spell",
    [
        lambda x: ops.mask(x, const(0.25), "lt"),
        lambda x: ops.mask(x, const(quarters(48)), "gt"),
        lambda x: ops.mask(x, const(-np.inf), "gt"),
        lambda x: op.negative(x),
    ],
    ids=["below", "a bound per column", "an infinite bound", "no comparison"],
)
def test_other_planes_are_their_own_source(spell):
    assert seen_by_a_pass(lambda e, x: e(spell(x)), plane_source) is None
    own = seen_by_a_pass(lambda e, x: e(spell(x)), lambda plane, g: (plane, own_source(plane, g)))
    assert own[1].x.same_as(own[0])
    assert own[1].compare.bound == 0
    assert own[1].compare.strict


def test_the_tensor_of_tokens_behind_heads():
    look = lambda x, graph: token_source(x, ROWS, graph)  # noqa: E731
    assert str(seen_by_a_pass(lambda e, x: split_heads(e, x, 2, 24), look)) == "x"
    other = lambda e, x: split_heads(e, x, 4, 12)  # noqa: E731
    assert seen_by_a_pass(other, look) is None
    turned = lambda e, x: e(op.permute_dims(split_heads(e, x, 2, 24), [0, 1, 3, 2]))  # noqa: E731
    assert seen_by_a_pass(turned, look) is None


def test_the_tensor_of_tokens_may_lie_behind_further_views():
    def build(e, x):
        return split_heads(e, e(op.reshape(x, (2, 5, 48))), 2, 24)

    found = seen_by_a_pass(build, lambda x, graph: token_source(x, ROWS, graph), (10, 48))
    assert ops.shape_of(found) == (2, 5, 48)


def test_some_tokens_of_a_tensor_are_not_its_tokens():
    def build(e, x):
        return e(op.strided_slice(split_heads(e, x, 2, 24), [2], [0], [3]))

    assert seen_by_a_pass(build, lambda x, graph: token_source(x, ROWS, graph)) is None


def test_products_of_scales_are_rounded_once():
    a, b = np.float32(0.1), quarters(7) * np.float32(0.3)
    expected = (a.astype(np.float64) * b).astype(np.float32)
    np.testing.assert_array_equal(product_scale(const(a), const(b)), expected)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (7,), (1, 7), (1, 1, 7)])
def test_constants_as_columns(shape):
    array = quarters(*shape)
    np.testing.assert_array_equal(column_vector(array, 7), np.broadcast_to(array.ravel(), 7))


@pytest.mark.parametrize("shape", [(7, 1), (3,), (2, 7), (14,)])
def test_other_constants_are_no_columns(shape):
    assert column_vector(quarters(*shape), 7) is None


def test_a_step_takes_one_number_or_padded_columns():
    spec = Dense(Rows(1, 2, 1, 33), Kind.SIGN, Kind.SIGN, 7, 32)
    for same in (np.float32(0.5), np.full(7, 0.5, np.float32), np.full((2, 7), 0.5, np.float32)):
        operand, array = step_operand(np.asarray(same), spec)
        assert operand is Operand.SCALAR
        np.testing.assert_array_equal(array, [0.5])
    operand, array = step_operand(quarters(7), spec)
    assert operand is Operand.COLUMN
    np.testing.assert_array_equal(array, np.pad(quarters(7), (0, 25)))
    assert step_operand(quarters(2, 7), spec) is None


@pytest.mark.parametrize("bound", [0.0, 0.5, -1.5, 1e-45])
def test_any_bound_can_be_written_strictly(bound):
    x = np.float32(bound)
    near = np.array([np.nextafter(x, -np.inf), x, np.nextafter(x, np.inf)], np.float32)
    strict = strict_bound(Compare(Kind.MASK, bound, strict=False))
    assert strict.strict
    np.testing.assert_array_equal(near > np.float32(strict.bound), near >= x)
    assert strict_bound(strict) is strict
