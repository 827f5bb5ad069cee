"""Float steps in NumPy against the same operators on TVM's machine."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op

from gsb_tvm.dialect.ops import is_call
from gsb_tvm.passes.elementwise import STEPS, elementwise_source, evaluate
from gsb_tvm.passes.rewriting import rewrite
from gsb_tvm.testing import module_of, run_module
from tests.passes.graphs import const

COLUMNS = 7
VECTOR = np.linspace(-2, 2, COLUMNS, dtype=np.float32) + np.float32(0.3)
GRID = np.linspace(-9, 9, 40 * COLUMNS, dtype=np.float32).reshape(1, 40, COLUMNS)

CALLS = {
    "relax.add": lambda x: op.add(x, const(VECTOR)),
    "relax.subtract": lambda x: op.subtract(const(VECTOR), x),
    "relax.multiply": lambda x: op.multiply(x, const(VECTOR)),
    "relax.divide": lambda x: op.divide(x, const(VECTOR[None])),
    "relax.maximum": lambda x: op.maximum(x, const(VECTOR)),
    "relax.minimum": lambda x: op.minimum(x, const(0.5)),
    "relax.negative": op.negative,
    "relax.abs": op.abs,
    "relax.erf": op.erf,
    "relax.tanh": op.tanh,
    "relax.exp": op.exp,
    "relax.sigmoid": op.sigmoid,
    "relax.sqrt": lambda x: op.sqrt(op.abs(x)),
    "relax.round": op.round,
    "relax.nn.relu": op.nn.relu,
    "relax.nn.gelu": op.nn.gelu,
    "relax.clip": lambda x: op.clip(x, -1, 2),
}
# Both sides approximate these; largest value 1, but for exp.
ROUNDED = {"relax.erf": 2e-7, "relax.tanh": 5e-7, "relax.sigmoid": 2e-7, "relax.nn.gelu": 5e-6}


def source_and_value(module, values, stop=lambda value: value is None):
    """What ``elementwise_source`` finds for the result of ``main``, and its value on ``values``."""
    found = []

    def visit(var, value, graph):
        bound = graph.emit(value)
        source = elementwise_source(bound, graph, stop=stop)
        found.append((source, None if source is None else evaluate(bound, source, values, graph)))
        return bound

    rewrite(module["main"], visit)
    return found[-1]


def test_every_step_is_tried():
    assert set(CALLS) == set(STEPS)


@pytest.fixture(scope="module")
def on_the_machine():
    def build(e, x):
        return relax.Tuple([e(call(x)) for call in CALLS.values()])

    return dict(zip(CALLS, run_module(module_of({"x": GRID.shape}, build), GRID), strict=True))


@pytest.mark.parametrize("name", CALLS)
def test_a_step_is_what_the_machine_computes(on_the_machine, name):
    module = module_of({"x": GRID.shape}, lambda e, x: e(CALLS[name](x)))
    _, value = source_and_value(module, GRID[0])
    assert value.dtype == np.float32
    expected = on_the_machine[name][0]
    if name == "relax.exp":
        np.testing.assert_allclose(value, expected, rtol=3e-7)
    else:
        np.testing.assert_allclose(value, expected, rtol=0, atol=ROUNDED.get(name, 0))


def test_a_value_that_is_reached_on_two_ways_has_one_source():
    def build(e, x):
        half = e(op.multiply(x, const(0.5)))
        bell = e(op.add(e(op.erf(e(op.divide(x, const(1.4142135))))), const(1)))
        return e(op.multiply(half, bell))

    source, value = source_and_value(module_of({"x": GRID.shape}, build), GRID[0])
    assert str(source) == "x"
    spread = np.abs(value - run_module(module_of({"x": GRID.shape}, build), GRID)[0][0])
    assert spread.max() < 2e-6


def test_division_by_zero_is_silent_and_infinite():
    module = module_of({"x": (1, 2, 3)}, lambda e, x: e(op.divide(const(1), x)))
    _, value = source_and_value(module, np.zeros((2, 3), np.float32))
    assert np.isinf(value).all()


def two_sources(e, x, y):
    return e(op.add(e(op.tanh(x)), y))


def transposed(e, x, y):
    return e(op.tanh(e(op.permute_dims(x, [0, 2, 1]))))


def per_token(e, x, y):
    return e(op.add(x, const(np.ones((4, 1)))))


def widened(e, x, y):
    return e(op.add(e(op.tanh(e(op.mean(x, axis=[1], keepdims=True)))), const(np.ones((4, 4)))))


def softmax(e, x, y):
    return e(op.nn.softmax(x))


@pytest.mark.parametrize("build", [two_sources, transposed, per_token, widened, softmax])
def test_what_is_no_chain_of_columns_has_no_source(build):
    module = module_of({"x": (1, 4, 4), "y": (1, 4, 4)}, build)
    source, _ = source_and_value(module, np.zeros((1, 4), np.float32))
    assert source is None


def test_the_search_ends_where_it_is_told():
    build = lambda e, x: e(op.negative(e(op.tanh(e(op.exp(x))))))  # noqa: E731
    module = module_of({"x": (1, 2, 3)}, build)
    values = np.ones((2, 3), np.float32)
    source, value = source_and_value(module, values, stop=lambda v: is_call(v, "relax.tanh"))
    assert source is not None
    np.testing.assert_array_equal(value, -values)
    nothing, _ = source_and_value(module, values, stop=lambda v: is_call(v, "relax.matmul"))
    assert nothing is None
