import numpy as np
import pytest

from gsb_tvm.frontend import load
from tests.frontend.running import constants, operators, run_relax
from tests.frontend.sketch import Sketch


def imported(build, shape=(2, 3)):
    g = Sketch()
    g.output(build(g, g.input("x", list(shape))), "y")
    return load(g.model())


SPELLINGS = {
    "(a - b) + b": lambda g, a, b: g("Add", g("Sub", a, b), b),
    "b + (a - b)": lambda g, a, b: g("Add", b, g("Sub", a, b)),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_live_residue_is_cancelled(spelling):
    model = imported(lambda g, x: SPELLINGS[spelling](g, g("Sign", x), g("Tanh", x)))
    assert operators(model.module) == ["sign"]
    assert model.notes == ["1 straight-through terms (a - b) + b cancelled"]


def test_equal_values_are_one_whatever_their_names():
    def build(g, x):
        first = g("Mul", g("Clip", x, np.float32(-1), np.float32(1)), np.float32(3))
        again = g("Mul", g("Clip", x, np.float32(-1), np.float32(1)), np.float32(3))
        return g("Add", g("Sub", g("Sign", x), first), again)

    assert operators(imported(build).module) == ["sign"]


def test_residue_through_identities():
    # detach() is an Identity where the dynamo exporter does not optimise; the values stay one
    def build(g, x):
        smooth = g("Tanh", x)
        difference = g("Sub", g("Identity", g("Sign", x)), g("Identity", smooth))
        return g("Identity", g("Add", difference, smooth))

    assert operators(imported(build).module) == ["sign"]


def test_an_input_that_is_an_output():
    model = imported(lambda g, x: g("Identity", g("Identity", x)))
    x = np.float32([[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(run_relax(model.module, x)[0], x)


def test_residue_in_residue():
    def build(g, x):
        inner = g("Add", g("Sub", g("Round", x), x), x)
        return g("Add", g("Sub", g("Sign", inner), g("Tanh", inner)), g("Tanh", inner))

    assert operators(imported(build).module) == ["round", "sign"]


def test_scaled_gradient_residue():
    # (x - g x) + g x, as learned step sizes write it
    def build(g, x):
        part = g("Mul", x, np.float32(0.01))
        return g("Relu", g("Add", g("Sub", x, part), part))

    assert operators(imported(build).module) == ["nn.relu"]


def test_what_only_looks_like_residue_stays():
    def other_value(g, x):
        return g("Add", g("Sub", g("Sign", x), g("Tanh", x)), g("Sigmoid", x))

    def other_order(g, x):
        return g("Add", g("Sub", g("Tanh", x), g("Sign", x)), g("Tanh", x))

    def other_attribute(g, x):
        return g("Add", g("Sub", x, g("Softmax", x, axis=0)), g("Softmax", x, axis=1))

    def subtracted_last(g, x):
        return g("Sub", g("Add", g("Sign", x), g("Tanh", x)), g("Tanh", x))

    for build in (other_value, other_order, other_attribute, subtracted_last):
        names = operators(imported(build).module)
        assert {"subtract", "add"} <= set(names)


def test_residue_that_broadcasts_is_part_of_the_value():
    def build(g, x):
        row = g.reduce("ReduceMean", x, [0])
        return g("Add", g("Sub", row, x), x)

    assert operators(imported(build).module) == ["mean", "subtract", "add"]


def test_residue_on_weights_goes_before_folding():
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((64, 48)).astype(np.float32)

    def build(g, x):
        w = g.constant(weight)
        m = g.reduce("ReduceMean", g("Abs", w), [1])
        clipped = g("Clip", w, np.float32(-1), np.float32(1))
        binary = g("Mul", g("Sign", w), m)
        binary = g("Add", g("Sub", binary, clipped), clipped)
        return g("MatMul", x, g("Transpose", binary, perm=[1, 0]))

    (found,) = constants(imported(build, (2, 48)).module, "matmul")
    for column in found.T:
        assert len(np.unique(column)) == 2
        assert np.unique(column)[0] == -np.unique(column)[1]
    # Without the rule the rows would be blurred.
    scale = np.abs(weight).mean(1, keepdims=True)
    clipped = np.clip(weight, -1, 1)
    blurred = (np.sign(weight) * scale - clipped) + clipped
    assert max(len(np.unique(row)) for row in blurred) > 2


def test_equal_values_are_computed_once():
    def build(g, x):
        return g("Mul", g("Exp", x), g("Neg", g("Exp", x)))

    model = imported(build)
    assert sorted(operators(model.module)) == ["exp", "multiply", "negative"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(run_relax(model.module, x)[0], -np.exp(2 * x), rtol=1e-5)
