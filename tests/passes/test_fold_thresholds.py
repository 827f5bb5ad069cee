"""Float steps between an integer and its bit become sets of integers: tried on every integer.

Row j of the input has |j| elements of the sign of j and zeros elsewhere, and column 0 of every
weight is all ones: its dot products are every integer in [-K, K]. Other columns are random.
"""

import numpy as np
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from tvm.relax import op

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Binarize, Compare, Kind
from gsb_tvm.passes.fold_thresholds import FoldThresholds, intervals
from gsb_tvm.passes.fuse_dense_steps import FuseDenseSteps
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.targets import resolve
from gsb_tvm.testing import assert_leaves_alone, assert_rewrites, module_of, operators
from tests.passes.graphs import K, bindings, const, quarters, through, two_level

PACK = PackDense(resolve("llvm -mtriple=x86_64-linux-gnu"))
SIGN, MASKED = Compare(Kind.SIGN, 0.0, strict=False), Compare(Kind.MASKED)
COLUMNS = 48


def every_integer(k):
    j = np.arange(-k, k + 1)[:, None]
    return (np.sign(j) * (np.arange(k) < np.abs(j)))[None].astype(np.float32)


def layer(steps, compare=MASKED, k=33, groups=1, scale=None, shift=False, fuse=True, norm=False):
    """binarize(steps(layer of the sign of x))."""
    signs = two_level(k, COLUMNS, scale=1)
    signs[:, 0] = 1
    scale = np.random.default_rng(k).uniform(0.01, 0.2, (1, COLUMNS)) if scale is None else scale
    rows = Rows(1, 2 * k + 1, groups, COLUMNS // groups)

    def build(e, x):
        y = e(ops.matmul([e(ops.sign(x, 0))], [const(1)], [const(signs)], [const(scale)]))
        args = [steps(e, y), *([const(np.ones(COLUMNS))] * (2 * norm + shift))]
        return e(ops.packed(Binarize(rows, compare, norm, shift), args))

    module = through(module_of({"x": (1, 2 * k + 1, k)}, build), PACK)
    return through(module, FuseDenseSteps()) if fuse else module


def folded(module, k=33):
    after = assert_rewrites(FoldThresholds(), module, inputs=[every_integer(k)])
    assert operators(after) == {"gsb.binarize": 1, "gsb.dense": 1}
    return ops.spec_of(bindings(after, "gsb.dense")[0])


def nothing(e, y):
    return y


def bias(e, y):
    return e(op.add(y, const(np.random.default_rng(7).uniform(-2, 2, COLUMNS))))


def gelu(e, y):
    """As exporters write it: two-sided, its smallest value -0.17 lies at -0.75."""
    bell = e(op.add(e(op.erf(e(op.divide(y, const(1.4142135))))), const(1)))
    return e(op.multiply(e(op.multiply(y, const(0.5))), bell))


def fc1(e, y):
    """GSB: GELU, clip, and a move that the minimum of GELU crosses in some columns."""
    clipped = e(op.clip(gelu(e, bias(e, y)), -10, 10))
    return e(op.add(clipped, const(np.linspace(-0.2, 0.3, COLUMNS))))


def outside(e, y):
    """Bits where |y| is large: the complement is an interval."""
    return e(op.subtract(e(op.abs(bias(e, y))), const(1)))


def inside(e, y):
    return e(op.negative(outside(e, y)))


@pytest.mark.parametrize("k", K)
@pytest.mark.parametrize("compare", [SIGN, MASKED], ids=["sign", "masked"])
def test_every_integer_of_every_width(k, compare):
    spec = folded(layer(bias, compare, k), k)
    assert spec.thresholds.kind is compare.kind
    assert spec.thresholds.rows == Rows(1, 2 * k + 1, 1, COLUMNS)


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("steps", [nothing, bias, fc1])
@pytest.mark.parametrize("bound", [0.0, 0.07])
def test_chains_give_the_same_bits_fused_or_not(steps, bound, fuse):
    folded(layer(steps, Compare(Kind.MASK, bound, strict=True), fuse=fuse))


@pytest.mark.parametrize("steps", [outside, inside, fc1])
@pytest.mark.parametrize("compare", [SIGN, Compare(Kind.MASK, 0.05)], ids=["sign", "mask"])
def test_sets_with_two_ends(steps, compare):
    folded(layer(steps, compare))


def test_sets_below_and_sets_that_are_complements():
    scale = np.where(np.arange(COLUMNS) % 2, 0.1, -0.1)[None]
    module = layer(bias, SIGN, scale=scale)
    folded(module)
    after = through(layer(outside, SIGN), FoldThresholds())
    (call,) = bindings(after, "gsb.dense")
    names = [name for name, _, _ in ops.spec_of(call).inputs()]
    assert call.args[names.index("flip")].value.numpy().any()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_bits_in_words_of_the_readers_groups(groups):
    spec = folded(layer(bias, MASKED, groups=groups))
    assert spec.thresholds.rows.groups == groups


def test_a_shift_of_the_comparison_is_one_more_step():
    folded(layer(fc1, SIGN, shift=True))


def test_the_set_of_zeros():
    """Zero at one integer, over a range (relu), nowhere, and at 0 of every unshifted column."""
    relu = lambda e, y: e(op.nn.relu(bias(e, y)))  # noqa: E731
    folded(layer(relu, MASKED))
    exact = lambda e, y: e(op.add(y, const(np.arange(COLUMNS) % 5 - 2.0)))  # noqa: E731
    folded(layer(exact, MASKED, scale=np.ones((1, COLUMNS))))
    folded(layer(nothing, MASKED))


def test_a_scale_of_zero_makes_every_integer_a_zero():
    scale = np.zeros((1, COLUMNS))
    folded(layer(nothing, MASKED, scale=scale))
    folded(layer(nothing, SIGN, scale=scale))


def test_what_divides_by_zero_counts_as_zero():
    """0 / 0 at integer 0: NaN is neither above nor below, as in torch.sign."""
    divided = lambda e, y: e(op.multiply(y, e(op.divide(const(0), y))))  # noqa: E731
    folded(layer(divided, MASKED))


@seed(0)
@settings(max_examples=12, deadline=None, database=None)
@given(
    number=st.integers(0, 999),
    kind=st.sampled_from([Kind.SIGN, Kind.MASK, Kind.MASKED]),
    bound=st.floats(-1, 1, width=32),
    strict=st.booleans(),
    width=st.sampled_from(K),
)
def test_random_scales_and_biases_of_either_sign(number, kind, bound, strict, width):
    rng = np.random.default_rng(number)
    scale = rng.choice([-1, 1], (1, COLUMNS)) * 10.0 ** rng.uniform(-3, 1, (1, COLUMNS))
    shift, factor = rng.standard_normal(COLUMNS), rng.standard_normal(COLUMNS)

    def steps(e, y):
        return e(op.multiply(e(op.add(y, const(shift))), const(factor)))

    compare = MASKED if kind is Kind.MASKED else Compare(kind, bound, strict)
    folded(layer(steps, compare, width, scale=scale), width)


def scattered(e, y):
    """Bits where ||y| - 1| > 0.5: three intervals, the complement is two."""
    middle = e(op.abs(e(op.subtract(e(op.abs(y)), const(1)))))
    return e(op.subtract(middle, const(0.5)))


def live(e, y):
    return e(op.add(y, e(op.tanh(e(op.multiply(y, e(op.mean(y))))))))


def live_tensor(e, y):
    return e(op.add(y, e(op.nn.softmax(y))))


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("steps", [scattered, live, live_tensor])
def test_what_is_no_interval_of_integers_stays(steps, fuse):
    assert_leaves_alone(FoldThresholds(), layer(steps, SIGN, fuse=fuse))


def test_zeros_at_two_places_stay():
    at_two = lambda e, y: e(op.subtract(e(op.abs(y)), const(3)))  # noqa: E731
    ones = np.ones((1, COLUMNS))
    assert_leaves_alone(FoldThresholds(), layer(at_two, MASKED, scale=ones))
    folded(layer(at_two, SIGN, scale=ones))


def test_a_norm_between_stays():
    normed = lambda e, y: e(  # noqa: E731
        op.nn.layer_norm(y, const(np.ones(COLUMNS)), const(np.zeros(COLUMNS)), axes=[-1])
    )
    assert_leaves_alone(FoldThresholds(), layer(normed, SIGN))
    assert_leaves_alone(FoldThresholds(), layer(nothing, SIGN, norm=True))


def test_a_residual_between_stays():
    def build(e, x):
        signs = two_level(33, 33, scale=1)
        y = e(ops.matmul([e(ops.sign(x, 0))], [const(1)], [const(signs)], [const(0.5)]))
        spec = Binarize(Rows(1, 3, 1, 33), SIGN, norm=False, shift=False)
        return e(ops.packed(spec, [e(op.add(x, y))]))

    module = through(module_of({"x": (1, 3, 33)}, build), PACK)
    assert_leaves_alone(FoldThresholds(), module)
    assert_leaves_alone(FoldThresholds(), through(module, FuseDenseSteps()))


def test_a_binarize_of_an_input_stays():
    spec = Binarize(Rows(1, 3, 1, 33), SIGN, norm=False, shift=False)
    module = module_of({"x": (1, 3, 33)}, lambda e, x: e(ops.packed(spec, [e(op.tanh(x))])))
    assert_leaves_alone(FoldThresholds(), module)


def test_a_result_that_others_read_too_is_computed_for_them():
    def build(e, x):
        signs = two_level(33, COLUMNS, scale=1)
        y = e(ops.matmul([e(ops.sign(x, 0))], [const(1)], [const(signs)], [const(0.5)]))
        spec = Binarize(Rows(1, 3, 1, COLUMNS), SIGN, norm=False, shift=False)
        bits = e(ops.packed(spec, [bias(e, y)]))
        return e(op.add(e(op.astype(e(op.max(bits)), "float32")), y))

    module = through(module_of({"x": (1, 3, 33)}, build), PACK)
    after = assert_rewrites(FoldThresholds(), module, inputs=[quarters(1, 3, 33)])
    assert operators(after)["gsb.dense"] == 2


def test_intervals_of_integers():
    dots = np.arange(-2, 3)
    holds = np.array([[0, 1, 1, 0, 1], [0, 0, 1, 1, 1], [0, 0, 1, 0, 1], [0, 0, 1, 0, 1],
                      [0, 0, 1, 0, 0]], bool)  # fmt: skip
    low, width = intervals(holds, dots)
    assert low[0] == np.iinfo(np.int32).max
    np.testing.assert_array_equal(low[1:], [-2, -2, -1, -2])
    np.testing.assert_array_equal(width, [0, 0, 4, 0, 3])
    gap = np.array([[1], [0], [1], [0], [0]], bool)
    assert intervals(gap, dots) is None
