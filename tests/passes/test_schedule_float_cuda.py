"""For a GPU every float loop nest is bound to threads, and packed kernels stay."""

from dataclasses import asdict

import pytest
from tvm import tirx
from tvm.relax import op
from tvm_ffi import structural_equal, structural_walk

from gsb_tvm.dialect.phases import SPEC, TUNED
from gsb_tvm.passes.lower_packed import LowerPacked
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.passes.schedule_float import ScheduleFloat
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.records import Record, key_of
from gsb_tvm.schedules.standings import PROVEN
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.targets import resolve
from gsb_tvm.testing import module_of
from tests.passes.float_operators import SHAPE, norm, product, softmax, steps
from tests.passes.graphs import const, recognised, through, two_level
from tests.passes.lowering import PROFILE, kernels, legalized

SM_90 = resolve("cuda -arch=sm_90")
PASS = ScheduleFloat(SM_90)


def axes(func):
    found = set()

    def see(loop):
        if loop.thread_binding is not None:
            found.add(loop.thread_binding.thread_tag)

    structural_walk(func.body, (tirx.For, see))
    return found


@pytest.mark.parametrize("build", [product, norm, softmax, steps])
def test_loops_are_bound_to_threads(build):
    before = legalized(module_of({"x": SHAPE}, build))
    text = before.script()
    after = PASS(before)
    assert before.script() == text
    for func in kernels(after).values():
        assert {"blockIdx.x", "threadIdx.x"} <= axes(func)


def test_records_choose_the_schedule():
    before = legalized(module_of({"x": SHAPE}, softmax))
    (func,) = kernels(before).values()
    rule, *_, last = float_kernels.space(func, SM_90)
    key = key_of(float_kernels.key(func), float_kernels.version(SM_90), SM_90)
    found = [
        Record(**asdict(key), choice=dict(choice), seconds=(seconds,), rule=(2e-6,))
        for choice, seconds in ((rule, 2e-6), (last, 1e-6))
    ]
    (chosen,) = kernels(ScheduleFloat(SM_90, Tunings(SM_90, found * PROVEN))(before)).values()
    assert str(chosen.attrs[TUNED]) == text_of(last)
    wanted = float_kernels.schedule(func, SM_90, last)
    assert structural_equal(chosen.without_attr(TUNED), wanted)
    assert not structural_equal(wanted, float_kernels.schedule(func, SM_90))


def test_packed_kernels_stay():
    def build(e, x):
        return e(op.tanh(e(op.matmul(e(op.sign(x)), const(two_level(33, 8))))))

    # Which machine packed kernels are for makes no difference here.
    packed = through(recognised({"x": SHAPE}, build), PackDense(PROFILE), LowerPacked(PROFILE))
    before = legalized(packed)
    old, new = kernels(before), kernels(PASS(before))
    ours = [name for name, func in old.items() if func.attrs and SPEC in func.attrs]
    assert len(ours) == 2
    assert all(structural_equal(old[name], new[name]) for name in ours)


def test_a_module_of_relax_operators_stays():
    module = module_of({"x": SHAPE}, softmax)
    assert structural_equal(PASS(module), module)
