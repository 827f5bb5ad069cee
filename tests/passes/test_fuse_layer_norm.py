"""Every spelling of a layer norm that exporters write becomes one operator; others stay."""

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax

from gsb_tvm.frontend import load
from gsb_tvm.passes.fuse_layer_norm import FuseLayerNorm
from tests.frontend.running import constants, operators, run_relax
from tests.frontend.sketch import Sketch, ints

WIDTHS = [1, 31, 32, 33, 64, 65]


def parameters(width):
    rng = np.random.default_rng(width)
    return rng.standard_normal((2, width)).astype(np.float32)


def centred(g, x):
    return g("Sub", x, g.reduce("ReduceMean", x, [-1]))


def root(g, variance, epsilon):
    return g("Sqrt", variance if epsilon is None else g("Add", variance, np.float32(epsilon)))


def legacy(g, x, width, epsilon=1e-12):
    """Pow for the square, the parameters first or second, as modules write them."""
    gamma, beta = parameters(width)
    c = centred(g, x)
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Pow", c, np.float32(2)), [-1]), epsilon))
    return g("Add", g("Mul", gamma, y), beta)


def without_epsilon(g, x, width):
    return legacy(g, x, width, epsilon=None)


def square_by_product(g, x, width):
    gamma, beta = parameters(width)
    c = centred(g, x)
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Mul", c, c), [-1]), 1e-5))
    return g("Add", beta, g("Mul", y, gamma))


def centred_twice(g, x, width):
    gamma, beta = parameters(width)
    again = g("Pow", centred(g, x), np.float32(2))
    y = g("Div", centred(g, x), root(g, g.reduce("ReduceMean", again, [-1]), 1e-5))
    return g("Add", g("Mul", y, gamma), beta)


def written_out(g, x, width):
    """Parameters expanded to the full shape, as onnxsim leaves them."""
    gamma, beta = (np.broadcast_to(p, (2, 3, width)).copy() for p in parameters(width))
    c = centred(g, x)
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Mul", c, c), [2]), 1e-6))
    return g("Add", g("Mul", y, gamma), beta)


def operator(g, x, width):
    return g("LayerNormalization", x, *parameters(width), epsilon=1e-6, axis=-1)


SPELLINGS = {
    f.__name__: (f, epsilon)
    for f, epsilon in [
        (legacy, 1e-12), (without_epsilon, 0.0), (square_by_product, 1e-5),
        (centred_twice, 1e-5), (written_out, 1e-6), (operator, 1e-6),
    ]
}  # fmt: skip


def module_of(build, *arguments, shape=(2, 3, 16), opset=17):
    g = Sketch(opset)
    g.output(build(g, g.input("x", list(shape)), *arguments), "y")
    return load(g.model()).module


def cleaned(module):
    for step in (
        *(FuseLayerNorm(), relax.transform.CanonicalizeBindings()),
        relax.transform.DeadCodeElimination(),
    ):
        module = step(module)
    return module


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_becomes_one_operator(spelling, opset):
    build, epsilon = SPELLINGS[spelling]
    before = module_of(build, 16, opset=opset)
    copy = tvm.ir.load_json(tvm.ir.save_json(before))
    after = cleaned(before)
    assert tvm_ffi.structural_equal(before, copy)
    relax.analysis.well_formed(after)
    assert operators(after) == ["nn.layer_norm"]
    (block,) = after["main"].body.blocks
    attrs = block.bindings[0].value.attrs
    assert attrs.epsilon == pytest.approx(epsilon, rel=1e-6)
    assert [int(axis) % 3 for axis in attrs.axes] == [2]
    for found, expected in zip(constants(after, "nn.layer_norm"), parameters(16), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert tvm_ffi.structural_equal(cleaned(after), after)


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_stay_those_of_the_graph(width):
    before = module_of(legacy, width, 1e-3, shape=(2, 3, width))
    x = np.random.default_rng(0).standard_normal((2, 3, width)).astype(np.float32)
    (ours,), (theirs,) = run_relax(cleaned(before), x), run_relax(before, x)
    # Two float32 sums of `width` terms of size 1 in another order, times |gamma| < 4.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=4 * (width + 8) * 2.0**-23)


def other_axis(g, x):
    gamma, beta = parameters(16)
    c = g("Sub", x, g.reduce("ReduceMean", x, [1]))
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Mul", c, c), [1]), 1e-5))
    return g("Add", g("Mul", y, gamma), beta)


def axis_dropped(g, x):
    gamma, beta = parameters(16)
    c = centred(g, x)
    variance = g("Unsqueeze", g.reduce("ReduceMean", g("Mul", c, c), [-1], 0), ints(2))
    y = g("Div", c, root(g, variance, 1e-5))
    return g("Add", g("Mul", y, gamma), beta)


def live_scale(g, x):
    c = centred(g, x)
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Mul", c, c), [-1]), 1e-5))
    return g("Add", g("Mul", y, x), parameters(16)[1])


def no_scale(g, x):
    c = centred(g, x)
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Mul", c, c), [-1]), 1e-5))
    return g("Add", y, parameters(16)[1])


def other_centre(g, x):
    gamma, beta = parameters(16)
    c, d = centred(g, x), centred(g, g("Tanh", x))
    y = g("Div", c, root(g, g.reduce("ReduceMean", g("Mul", d, d), [-1]), 1e-5))
    return g("Add", g("Mul", y, gamma), beta)


def root_mean_square(g, x):
    gamma, beta = parameters(16)
    y = g("Div", x, root(g, g.reduce("ReduceMean", g("Mul", x, x), [-1]), 1e-5))
    return g("Add", g("Mul", y, gamma), beta)


def cube(g, x):
    gamma, beta = parameters(16)
    c = centred(g, x)
    third = g("Mul", g("Mul", c, c), c)
    y = g("Div", c, root(g, g.reduce("ReduceMean", third, [-1]), 1e-5))
    return g("Add", g("Mul", y, gamma), beta)


@pytest.mark.parametrize(
    "build",
    [other_axis, axis_dropped, live_scale, no_scale, other_centre, root_mean_square, cube],
)
def test_what_is_no_layer_norm_stays(build):
    before = module_of(build)
    assert operators(cleaned(before)) == operators(before)


def test_a_mean_that_is_used_elsewhere_stays():
    def build(g, x):
        mean = g.reduce("ReduceMean", x, [-1])
        return g("Add", legacy(g, x, 16), mean)

    assert sorted(operators(cleaned(module_of(build)))) == ["add", "mean", "nn.layer_norm"]
