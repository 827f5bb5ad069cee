"""Chains of views that move nothing vanish; any other chain stays."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from gsb_tvm.passes.simplify_views import SimplifyViews
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators
from tests.passes.graphs import merge_heads, split_heads

SHAPE = (2, 5, 48)


def between(chain):
    """tanh(chain(tanh x)): operators at both ends that are no views."""
    return module_of({"x": SHAPE}, lambda e, x: e(op.tanh(chain(e, e(op.tanh(x))))))


def heads_and_back(e, x):
    return merge_heads(e, split_heads(e, x, 2, 24))


def reshape_twice(e, x):
    return e(op.reshape(e(op.reshape(x, (10, 48))), SHAPE))


def same_shape(e, x):
    return e(op.reshape(x, SHAPE))


def turn_twice(e, x):
    return e(op.permute_dims(e(op.permute_dims(x, [0, 2, 1])), [0, 2, 1]))


def whole_slice(e, x):
    return e(op.strided_slice(x, [1], [0], [5]))


def squeezed(e, x):
    return e(op.squeeze(e(op.expand_dims(x, [0])), [0]))


IDENTITIES = [heads_and_back, reshape_twice, same_shape, turn_twice, whole_slice, squeezed]


@pytest.mark.parametrize("chain", IDENTITIES)
def test_a_chain_that_moves_nothing_vanishes(chain):
    expected = module_of({"x": SHAPE}, lambda e, x: e(op.tanh(e(op.tanh(x)))))
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert_rewrites(SimplifyViews(), between(chain), expected, inputs=[x])


def test_only_the_identical_end_of_a_chain_vanishes():
    def chain(e, x):
        return turn_twice(e, e(op.reshape(x, (5, 2, 48))))

    after = assert_rewrites(SimplifyViews(), between(chain))
    assert operators(after) == {"relax.tanh": 2, "relax.reshape": 1}


def test_what_another_reader_takes_from_the_middle_stays():
    def build(e, x):
        heads = split_heads(e, x, 2, 24)
        return relax.Tuple([e(op.tanh(heads)), e(op.tanh(merge_heads(e, heads)))])

    after = assert_rewrites(SimplifyViews(), module_of({"x": SHAPE}, build))
    assert operators(after) == {"relax.tanh": 2, "relax.reshape": 1, "relax.permute_dims": 1}


def moved(e, x):
    return e(op.reshape(e(op.permute_dims(x, [0, 2, 1])), SHAPE))


def reshaped(e, x):
    return e(op.reshape(x, (10, 48)))


def reversed_rows(e, x):
    return e(op.strided_slice(x, [1], [4], [-6], [-1]))


def part(e, x):
    return e(op.strided_slice(x, [1], [0], [3]))


def half_of_a_split(e, x):
    return e(relax.TupleGetItem(e(op.split(x, 2, axis=2)), 0))


@pytest.mark.parametrize("chain", [moved, reshaped, part, half_of_a_split, reversed_rows])
def test_a_chain_that_moves_or_drops_an_element_stays(chain):
    assert_leaves_alone(SimplifyViews(), between(chain))
