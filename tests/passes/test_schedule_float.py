"""Float loop nests are scheduled, packed kernels and unknown nests stay, the numbers too."""

import numpy as np
import pytest
from tvm.relax import op
from tvm_ffi import structural_equal

from gsb_tvm.dialect.phases import SPEC, TUNED
from gsb_tvm.passes.lower_packed import LowerPacked
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.passes.schedule_float import ScheduleFloat
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.records import Record, feature_set
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.testing import module_of
from tests.passes.float_operators import SHAPE, norm, product, softmax, steps
from tests.passes.graphs import const, quarters, recognised, through, two_level
from tests.passes.lowering import PROFILE, kernels, legalized, run_compiled

PASS = ScheduleFloat(PROFILE)


@pytest.mark.parametrize("build", [product, norm, softmax, steps])
def test_float_kernels_are_scheduled_and_compute_the_same(build):
    before = legalized(module_of({"x": SHAPE}, build))
    text = before.script()
    after = PASS(before)
    assert before.script() == text
    old, new = kernels(before), kernels(after)
    assert old.keys() == new.keys()
    assert any(not structural_equal(old[name], new[name]) for name in old)
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    # Sums of up to 33 terms of size 4 may be taken in another order.
    tolerance = 33 * 4 * 2.0**-23
    np.testing.assert_allclose(
        run_compiled(after, x), run_compiled(before, x), rtol=0, atol=tolerance
    )


def test_packed_kernels_stay():
    def build(e, x):
        return e(op.tanh(e(op.matmul(e(op.sign(x)), const(two_level(33, 8))))))

    packed = through(recognised({"x": SHAPE}, build), PackDense(PROFILE), LowerPacked(PROFILE))
    before = legalized(packed)
    old, new = kernels(before), kernels(PASS(before))
    ours = [name for name, func in old.items() if func.attrs and SPEC in func.attrs]
    assert len(ours) == 2
    assert all(structural_equal(old[name], new[name]) for name in ours)
    x = quarters(*SHAPE)
    np.testing.assert_allclose(run_compiled(PASS(before), x), run_compiled(before, x), rtol=1e-6)


def test_a_module_of_relax_operators_stays():
    module = module_of({"x": SHAPE}, softmax)
    assert structural_equal(PASS(module), module)


def record(func, choice, seconds, **changes):
    fields = {
        "kernel": float_kernels.key(func),
        "schedule": float_kernels.VERSION,
        "features": feature_set(PROFILE),
        "cpu": PROFILE.mcpu,
    }
    return Record(**{**fields, **changes}, choice=dict(choice), seconds=(seconds,), rule=(2e-6,))


def tunable():
    """A module, its one float kernel, the rule's choice of it and the last of its space."""
    module = legalized(module_of({"x": SHAPE}, product))
    (func,) = [each for each in kernels(module).values() if float_kernels.is_tunable(each, PROFILE)]
    first, *_, last = float_kernels.space(func, PROFILE)
    return module, func, first, last


def scheduled(module, records):
    after = ScheduleFloat(PROFILE, Tunings(PROFILE, records * PROVEN))(module)
    (func,) = [each for each in kernels(after).values() if "tirx.is_scheduled" in each.attrs]
    return after, func


def test_records_choose_the_kernel():
    before, func, first, last = tunable()
    after, found = scheduled(before, [record(func, first, 2e-6), record(func, last, 1e-6)])
    assert str(found.attrs[TUNED]) == text_of(last)
    wanted = float_kernels.schedule(func, PROFILE, last)
    assert structural_equal(found.without_attr(TUNED), wanted)
    x = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    tolerance = 33 * 4 * 2.0**-23
    np.testing.assert_allclose(
        run_compiled(after, x), run_compiled(before, x), rtol=0, atol=tolerance
    )


def test_a_rule_that_is_the_fastest_stays_and_says_so():
    before, func, first, last = tunable()
    _, found = scheduled(before, [record(func, first, 1e-6), record(func, last, 2e-6)])
    assert str(found.attrs[TUNED]) == text_of(first)
    assert structural_equal(found.without_attr(TUNED), float_kernels.schedule(func, PROFILE))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": float_kernels.VERSION + 1},
        {"features": "0" * 16},
        {"cpu": "another"},
        {"kernel": "Float {}"},
    ],
    ids=["version", "features", "cpu", "kernel"],
)
def test_records_of_something_else_do_not_count(changes):
    before, func, first, last = tunable()
    records = [record(func, first, 2e-6, **changes), record(func, last, 1e-6, **changes)]
    _, found = scheduled(before, records)
    assert TUNED not in found.attrs
    assert structural_equal(found, float_kernels.schedule(func, PROFILE))


def test_a_choice_outside_of_the_space_does_not_count():
    before, func, first, _ = tunable()
    unknown = {**first, "lanes": 3}
    _, found = scheduled(before, [record(func, first, 2e-6), record(func, unknown, 1e-6)])
    assert structural_equal(found.without_attr(TUNED), float_kernels.schedule(func, PROFILE))


def test_equal_kernels_have_one_record():
    """The key of a PrimFunc as it is before the pass is what the pass asks for."""
    _, func, first, last = tunable()
    again, *_ = tunable()
    _, found = scheduled(again, [record(func, first, 2e-6), record(func, last, 1e-6)])
    assert str(found.attrs[TUNED]) == text_of(last)
