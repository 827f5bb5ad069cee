"""Constants that repeat along an axis are stored once."""

import numpy as np
import pytest
from tvm import relax

from gsb_tvm.passes.store_repeats import SMALLEST, StoreRepeats
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators

WIDTH = 384


def concat(token, batch=4, tokens=3):
    """Module that puts ``token`` before live tokens."""

    def build(emit, x):
        return emit(relax.op.concat((relax.const(token), x), axis=1))

    return module_of({"x": (batch, tokens, token.shape[-1])}, build)


def largest_constant(module):
    sizes = [0]

    def visit(expr):
        if hasattr(expr, "value") and hasattr(expr.value, "numpy"):
            sizes.append(expr.value.numpy().size)

    relax.analysis.post_order_visit(module["main"].body, visit)
    return max(sizes)


@pytest.mark.parametrize("width", [WIDTH, 385, 1023])
def test_stores_one_of_four_equal_tokens(width):
    rng = np.random.default_rng(0)
    token = np.repeat(rng.standard_normal((1, 1, width), dtype=np.float32), 4, axis=0)
    x = rng.standard_normal((4, 3, width), dtype=np.float32)
    after = assert_rewrites(StoreRepeats(), concat(token), inputs=[x])
    assert operators(after)["relax.broadcast_to"] == 1
    assert largest_constant(after) == width


def test_leaves_different_tokens_alone():
    token = np.random.default_rng(1).standard_normal((4, 1, WIDTH), dtype=np.float32)
    assert_leaves_alone(StoreRepeats(), concat(token))


def test_leaves_small_constants_alone():
    token = np.ones((4, 1, SMALLEST // 4 - 1), dtype=np.float32)
    assert_leaves_alone(StoreRepeats(), concat(token))


def test_leaves_other_operators_alone():
    bias = np.ones((4, 3, WIDTH), dtype=np.float32)
    module = module_of(
        {"x": (4, 3, WIDTH)}, lambda emit, x: emit(relax.op.add(x, relax.const(bias)))
    )
    assert_leaves_alone(StoreRepeats(), module)
