"""The engine under every pass: what a visit sees, what it may return, what stays the same."""

import numpy as np
import pytest
from tvm import relax
from tvm.relax import op
from tvm_ffi import structural_equal

from gsb_tvm.dialect.ops import is_call
from gsb_tvm.passes.rewriting import (
    constant,
    literal,
    operand_pair,
    payload,
    rewrite,
    rewrite_pass,
    scalar,
)
from gsb_tvm.testing import module_of, operators, run_module
from tests.passes.graphs import const

SHAPE = (2, 3)
X = np.arange(6, dtype=np.float32).reshape(SHAPE) - 2


def square_of_tanh(e, x):
    y = e(op.tanh(x))
    return e(op.multiply(y, y))


def negate_tanh(var, value, graph):
    return op.negative(value.args[0]) if is_call(value, "relax.tanh") else None


def test_a_visit_that_replaces_nothing_returns_the_same_function():
    func = module_of({"x": SHAPE}, square_of_tanh)["main"]
    assert rewrite(func, lambda var, value, graph: None).same_as(func)


def test_a_replacement_reaches_every_reader_and_the_input_stays():
    before = module_of({"x": SHAPE}, square_of_tanh)
    text = before.script()
    after = rewrite_pass("Test", lambda: negate_tanh)(before)
    assert before.script() == text
    assert operators(after) == {"relax.negative": 1, "relax.multiply": 1}
    np.testing.assert_array_equal(run_module(after, X)[0], X * X)


def test_each_run_has_a_visit_of_its_own():
    made = []

    def make():
        made.append(1)
        return negate_tanh

    one = rewrite_pass("Test", make)
    assert one.info.name == "gsb.Test"
    module = module_of({"x": SHAPE}, square_of_tanh)
    assert structural_equal(one(module), one(module))
    assert len(made) == 2


def test_a_variable_may_stand_for_a_value():
    def skip(var, value, graph):
        return value.args[0] if is_call(value, "relax.tanh") else None

    after = rewrite_pass("Test", lambda: skip)(module_of({"x": SHAPE}, square_of_tanh))
    np.testing.assert_array_equal(run_module(after, X)[0], X * X)


def test_tuples_and_their_items_are_rebuilt():
    def build(e, x):
        parts = e(op.split(e(op.tanh(x)), 3, axis=1))
        items = [e(relax.TupleGetItem(parts, i)) for i in (2, 0)]
        return relax.Tuple([*items, e(op.add(*items))])

    after = rewrite_pass("Test", lambda: negate_tanh)(module_of({"x": SHAPE}, build))
    outputs = run_module(after, X)
    np.testing.assert_array_equal(outputs[0], -X[:, 2:])
    np.testing.assert_array_equal(outputs[2], -X[:, :1] - X[:, 2:])


def test_attributes_of_the_function_stay():
    module = module_of({"x": SHAPE}, square_of_tanh)
    func = module["main"].with_attr("num_input", 1)
    assert int(rewrite(func, negate_tanh).attrs["num_input"]) == 1


def test_uses_are_those_of_the_function_before_the_pass():
    seen = {}

    def visit(var, value, graph):
        if isinstance(value, relax.Call):
            seen[value.op.name] = graph.is_single_use(value.args[0])
        return negate_tanh(var, value, graph)

    def build(e, x):
        y = e(op.tanh(x))
        z = e(op.exp(y))
        return e(op.add(e(op.multiply(z, z)), e(op.abs(y))))

    rewrite(module_of({"x": SHAPE}, build)["main"], visit)
    # x is read once, y and z twice, and the replacement of tanh counts as y.
    assert seen == {
        "relax.tanh": True, "relax.exp": False, "relax.multiply": False, "relax.abs": False,
        "relax.add": True,
    }  # fmt: skip


def test_producers():
    found = {}

    def visit(var, value, graph):
        if is_call(value, "relax.multiply"):
            y = value.args[0]
            found["tanh"] = graph.call(y, "relax.exp", "relax.tanh") is not None
            found["other"] = graph.call(y, "relax.exp")
            found["parameter"] = graph.producer(graph.producer(y).args[0])
            assert graph.emit(y) is y
        return None

    rewrite(module_of({"x": SHAPE}, square_of_tanh)["main"], visit)
    assert found == {"tanh": True, "other": None, "parameter": None}


def test_constants():
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    vector = literal([1.0, 2.0], "float32")
    assert constant(x) is None
    np.testing.assert_array_equal(payload(vector), [1, 2])
    assert scalar(vector) is None
    assert scalar(x) is None
    assert scalar(const([[0.5]])) == 0.5
    turned = literal(np.arange(6, dtype=np.float32).reshape(2, 3).T)
    np.testing.assert_array_equal(payload(turned), [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("swapped", [False, True])
def test_the_live_operand_and_the_constant(swapped):
    x = relax.Var("x", relax.TensorType(SHAPE, "float32"))
    operands = [x, const(2)][:: -1 if swapped else 1]
    live, array = operand_pair(op.multiply(*operands))
    assert live.same_as(x)
    assert array == 2
    assert operand_pair(op.multiply(x, x)) is None
    assert operand_pair(op.multiply(const(1), const(2))) is None
