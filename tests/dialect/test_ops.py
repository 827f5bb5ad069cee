"""House operators in a module: their types, their text, and what they compute on the machine."""

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm_ffi import structural_equal

from gsb_tvm.dialect import ops, oracle
from gsb_tvm.dialect.specs import encode
from gsb_tvm.testing import module_of, run_module
from tests.dialect.catalogue import SPECS, arguments

SPECIAL = np.array([[0.0, -0.0, 1e-45, -1e-45, 1e-38, -3.5, np.inf, -np.inf]], np.float32)


def literal(value):
    return relax.const(tvm.runtime.tensor(np.asarray(value)))


def packed_call(name):
    spec = SPECS[name]
    return ops.packed(spec, [literal(array) for array in arguments(spec)])


def fields(value, count):
    return [value] if count == 1 else [relax.TupleGetItem(value, i) for i in range(count)]


@pytest.fixture(scope="module")
def on_the_machine():
    """Outputs of one module that holds every packed operator, by name of the spec."""
    counts = {name: len(spec.outputs()) for name, spec in SPECS.items()}

    def build(emit, x):
        outputs = []
        for name, count in counts.items():
            outputs += [emit(field) for field in fields(emit(packed_call(name)), count)]
        return relax.Tuple(outputs)

    results = iter(run_module(module_of({"x": (1,)}, build), np.zeros(1, np.float32)))
    return {name: [next(results) for _ in range(count)] for name, count in counts.items()}


@pytest.mark.parametrize("name", SPECS)
def test_packed_operators_run_on_the_oracle(on_the_machine, name):
    spec = SPECS[name]
    expected = oracle.compute(spec, arguments(spec))
    for found, want in zip(on_the_machine[name], expected, strict=True):
        np.testing.assert_array_equal(found, want)
        assert found.dtype == want.dtype


@pytest.mark.parametrize("name", SPECS)
def test_packed_operators_carry_their_spec(name):
    call = packed_call(name)
    assert ops.is_packed(call)
    assert ops.is_call(call, ops.PACKED[type(SPECS[name])])
    assert ops.spec_of(call) == SPECS[name]
    assert str(call.attrs["spec"]) == encode(SPECS[name])


@pytest.mark.parametrize("name", SPECS)
def test_types_of_packed_operators_follow_the_spec(name):
    types = [ops.tensor_type(tensor) for tensor in SPECS[name].outputs()]
    found = relax.BlockBuilder().normalize(packed_call(name)).ty
    expected = types[0] if len(types) == 1 else relax.TupleType(types)
    assert structural_equal(found, expected)


def test_what_is_not_packed():
    x = relax.Var("x", relax.TensorType((1, 2), "float32"))
    assert not ops.is_packed(x)
    assert not ops.is_packed(ops.sign(x, 0))
    assert not ops.is_call(x, "gsb.sign")
    assert ops.shape_of(x) == (1, 2)
    assert ops.dtype_of(x) == "float32"


@pytest.fixture(scope="module")
def planes_on_the_machine():
    """Signs with each rule at zero, masks with each comparison, of special values."""

    def build(emit, x):
        signs = [ops.sign(x, at_zero) for at_zero in (-1, 0, 1)]
        masks = [ops.mask(x, literal(np.float32(0)), c) for c in ("gt", "ge", "lt", "le")]
        return relax.Tuple([emit(call) for call in signs + masks])

    return run_module(module_of({"x": SPECIAL.shape}, build), SPECIAL)


@pytest.mark.parametrize("at_zero", [-1, 0, 1])
def test_signs_differ_at_zero_only(planes_on_the_machine, at_zero):
    found = planes_on_the_machine[at_zero + 1]
    np.testing.assert_array_equal(found, np.where(SPECIAL == 0, at_zero, np.sign(SPECIAL)))


@pytest.mark.parametrize(
    ("item", "holds"),
    [(3, SPECIAL > 0), (4, SPECIAL >= 0), (5, SPECIAL < 0), (6, SPECIAL <= 0)],
    ids=["gt", "ge", "lt", "le"],
)
def test_masks_of_each_comparison(planes_on_the_machine, item, holds):
    found = planes_on_the_machine[item]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, holds)


def test_a_superposed_product_is_the_product_of_the_sums():
    rng = np.random.default_rng(0)
    a = rng.choice([-1.0, 0.0, 1.0], (2, 2, 3, 5)).astype(np.float32)
    b = rng.choice([-1.0, 1.0], (2, 2, 5, 4)).astype(np.float32)
    # Powers of two: every product and sum is exact, in any order.
    s, t = np.array([[[2.0]], [[0.5]]], np.float32), np.array([[1.0, 2.0, 4.0, 8.0]], np.float32)

    def build(emit, x, y):
        scales = literal(s), literal(np.float32(0.25)), literal(t)
        return emit(ops.matmul([x, x], scales[:2], [y], scales[2:]))

    module = module_of({"x": a.shape, "y": b.shape}, build)
    assert ops.shape_of(module["main"].body.body) == (2, 2, 3, 4)
    (found,) = run_module(module, a, b)
    np.testing.assert_array_equal(found, (a * s + a * 0.25) @ (b * t))
