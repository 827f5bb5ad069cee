"""Seven spellings of a sign, which differ at zero, through import and compilation."""

import numpy as np
import onnx
import pytest

from gsb_tvm.frontend import load
from tests.frontend.running import operators, run_onnx, run_relax
from tests.frontend.sketch import Sketch

ONE, TWO, ZERO = np.float32(1), np.float32(2), np.float32(0)
FLOAT = onnx.TensorProto.FLOAT
SPECIAL = np.array(
    [0.0, -0.0, 1e-45, -1e-45, 1e-38, -1e-38, 0.3, -0.3, 5, -5, 3e38, -3e38, np.inf, -np.inf],
    np.float32,
)


def sign(g, x):
    return g("Sign", x)


def where(g, x):
    return g("Where", g("GreaterOrEqual", x, ZERO), ONE, -ONE)


def greater(g, x):
    return g("Sub", g("Mul", g("Cast", g("Greater", x, ZERO), to=FLOAT), TWO), ONE)


def heaviside(g, x):
    step = g("Where", g("Less", x, ZERO), ZERO, ONE)
    step = g("Where", g("Equal", x, ZERO), np.float32(0.5), step)
    return g("Sub", g("Mul", step, TWO), ONE)


def clip_straight_through(g, x):
    before, after = g("Clip", x, -ONE, ONE), g("Clip", x, -ONE, ONE)
    return g("Add", g("Sub", g("Sign", x), before), after)


def straight_through(g, x):
    return g("Add", x, g("Sub", g("Sign", x), x))


def rounding(g, x):
    unit = g("Clip", g("Div", g("Add", x, ONE), TWO), ZERO, ONE)
    return g("Sub", g("Mul", g("Round", unit), TWO), ONE)


def bipolar(g, x):
    return g("BipolarQuant", x, ONE, domain="qonnx.custom_op.general")


def masked_assignment(g, x):
    """torch.export's form of s = sign(x); s[s == -1] = 0."""
    s = g("Sign", x)
    mask = g("Equal", s, -ONE)
    indices = g("Transpose", g("NonZero", mask), perm=[1, 0])
    flat = g("Cast", g("Reshape", mask, np.array([-1])), to=onnx.TensorProto.INT64)
    count = g.reduce("ReduceSum", flat, [0])
    updates = g("Reshape", g("Expand", np.zeros((), np.float32), count), np.array([-1]))
    return g("ScatterND", s, indices, updates)


SPELLINGS = {
    f.__name__: f
    for f in (
        *(sign, where, greater, heaviside, clip_straight_through, straight_through, rounding),
        *(bipolar, masked_assignment),
    )
}
AT_ZERO = {
    "sign": 0, "where": 1, "greater": -1, "heaviside": 0, "clip_straight_through": 0,
    "straight_through": 0, "rounding": -1, "bipolar": 1, "masked_assignment": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def results():
    """Outputs of each spelling on SPECIAL: ours, and ONNX Runtime's where it knows the node."""
    g, plain = Sketch(18), Sketch(18)
    x, y = g.input("x", list(SPECIAL.shape)), plain.input("x", list(SPECIAL.shape))
    for name, spell in SPELLINGS.items():
        g.output(spell(g, x), name, shape=SPECIAL.shape)
        if spell is not bipolar:
            plain.output(spell(plain, y), name, shape=SPECIAL.shape)
    ours = dict(zip(SPELLINGS, run_relax(load(g.model()).module, SPECIAL), strict=True))
    known = [name for name in SPELLINGS if name != "bipolar"]
    theirs = dict(zip(known, run_onnx(plain.model(), SPECIAL), strict=True))
    return ours, theirs


@pytest.mark.parametrize("name", SPELLINGS)
def test_zero_gives_what_the_spelling_says(results, name):
    ours, _ = results
    assert ours[name][0] == ours[name][1] == AT_ZERO[name]


@pytest.mark.parametrize("name", [name for name in SPELLINGS if name != "bipolar"])
def test_special_values_are_those_of_onnx_runtime(results, name):
    ours, theirs = results
    # Written out, (sign(x) - x) + x loses the 1 beside a large x and is inf - inf at the end: the
    # contract is the graph without such terms.
    kept = np.abs(SPECIAL) < 2**24 if name == "straight_through" else np.full(SPECIAL.shape, True)
    np.testing.assert_array_equal(ours[name][kept], theirs[name][kept])
    np.testing.assert_array_equal(ours["straight_through"], ours["sign"])


def test_bipolar_is_where_greater_or_equal(results):
    ours, _ = results
    np.testing.assert_array_equal(ours["bipolar"], ours["where"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sign", ["sign"]),
        ("where", ["greater_equal", "where"]),
        ("greater", ["greater", "astype", "multiply", "subtract"]),
        ("heaviside", ["less", "where", "equal", "where", "multiply", "subtract"]),
        ("clip_straight_through", ["sign"]),
        ("straight_through", ["sign"]),
        ("rounding", ["add", "divide", "clip", "round", "multiply", "subtract"]),
        ("bipolar", ["greater_equal", "where"]),
        ("masked_assignment", ["sign", "equal", "where"]),
    ],
)
def test_each_spelling_arrives_as_documented(name, expected):
    g = Sketch(18)
    g.output(SPELLINGS[name](g, g.input("x", [4])), "y", shape=[4])
    found = operators(load(g.model()).module)
    assert sorted(found) == sorted(expected)


def test_nan_gives_zero_as_in_torch():
    g = Sketch()
    g.output(g("Sign", g.input("x", [1])))
    (out,) = run_relax(load(g.model()).module, np.array([np.nan], np.float32))
    assert out[0] == 0


def test_bipolar_with_a_scale_a_channel():
    g = Sketch()
    x = g.input("x", [2, 3])
    g.output(
        g("BipolarQuant", x, np.array([1.0, 2.0, 0.5]), domain="qonnx.custom_op.general"),
        shape=[2, 3],
    )
    value = np.array([[0.0, -1, 2], [-0.0, 3, -4]], np.float32)
    (out,) = run_relax(load(g.model()).module, value)
    np.testing.assert_array_equal(out, [[1, -2, 0.5], [1, 2, -0.5]])
