"""Float operators on CUDA: the numbers of the unscheduled PrimFunc, whatever order threads take."""

import numpy as np
import pytest
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st
from tvm.ir import save_json
from tvm.relax import op as R
from tvm_ffi import structural_equal

from gsb_tvm.runtime.cuda.launches import lower
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.schedules.float import schedule, space
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.samples import disagreement
from gsb_tvm.tuning.workloads import Float
from tests.effort import every
from tests.schedules.cuda.emulator import WAYS, Emulated, outputs
from tests.schedules.cuda.kernels import ARCHS, compiled, lowered
from tests.schedules.cuda.sass import instructions
from tests.schedules.float_functions import inputs, ones
from tests.schedules.float_functions import lowered as functions_of
from tests.schedules.test_float import CLOSE, EXACT
from tests.schedules.test_float_windows import SLIDING

SM_90 = resolve("cuda -arch=sm_90")
CASES = EXACT | CLOSE | SLIDING

# Each way of each rule, and what rules say no to.
CHOSEN = [
    *("dense 13x33x77", "vector 1x64x100", "column 9x40x1", "live batched", "int8 dense"),
    *("int8 vector", "padded convolution", "grouped convolution", "concat of columns", "heads"),
    *("sum of rows", "sum of all, in slices", "largest", "layer norm 2x384", "softmax 198"),
    *("softmax of columns", "3x3, stride 3, of 50", "with bias and relu"),
]


def check(func, choice=None):
    scheduled = schedule(func, SM_90, choice)
    kernels = lowered(scheduled)
    emulated = Emulated(kernels.source)
    drawn = Float("", save_json(func)).sample(SM_90, {}, np.random.default_rng(0), zeros=False)
    for way in WAYS:
        got = outputs(kernels, "kernel", emulated, drawn.inputs, drawn.outputs, way)
        wrong = disagreement(drawn, got)
        assert not wrong, f"{way}, {choice}: {wrong}\n{func}"
    return kernels


@pytest.mark.parametrize("name", CHOSEN)
def test_numbers_of_the_unscheduled_function(name):
    for func in CASES[name]():
        kernels = check(func)
        assert "__activemask" not in kernels.source


@pytest.mark.parametrize("name", CHOSEN[::4])
def test_every_choice_computes_the_same(name):
    for func in CASES[name]():
        rule, *others = space(func, SM_90)
        assert others
        assert structural_equal(schedule(func, SM_90), schedule(func, SM_90, rule))
        for choice in others:
            check(func, choice)


def _dense(depth, columns):
    return lambda x: R.nn.gelu(R.add(R.matmul(x, ones(depth, columns)), ones(columns)))


@seed(0)
@settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])
@given(
    rows=st.integers(1, 70),
    depth=st.integers(1, 70),
    columns=st.integers(1, 70),
    kind=st.booleans(),
)
def test_any_shape(rows, depth, columns, kind):
    graph = _dense(depth, columns) if kind else lambda x: R.nn.softmax(x, axis=-1)
    for func in functions_of(graph, (2, rows, depth)):
        check(func)


def test_steps_stay_rounded():
    """x * y + z in one kernel rounds twice, as in two: no fused multiply-add."""
    shape = (3, 41)
    (func,) = functions_of(lambda x, y, z: R.add(R.multiply(x, y), z), shape, shape, shape)
    scheduled = schedule(func, SM_90)
    kernels = lowered(scheduled)
    x, y, z = inputs(func, 5, exact=False)
    (got,) = outputs(kernels, "kernel", Emulated(kernels.source), [x, y, z], [x])
    np.testing.assert_array_equal(got, x * y + z)
    assert not instructions(compiled(scheduled).cubin)["FFMA"]


def test_sums_of_products_are_fused():
    """All of them, whether a thread, a block or neighbouring lanes of a vector add them up."""
    for name in ("dense 50x64x192", "vector 1x64x100", "padded convolution"):
        (func,) = CASES[name]()
        found = instructions(compiled(schedule(func, SM_90)).cubin)
        assert found["FFMA"] > 0
        assert found["FMUL"] == 0, name


def test_a_block_takes_no_more_shared_memory_than_there_is():
    """What follows a sum of a long row keeps the row: too long, and another rule has to do it."""
    for width in (300, 3000, 30000):
        graph = lambda x: R.nn.softmax(R.multiply(x, x), axis=-1)  # noqa: E731
        for func in functions_of(graph, (1, 2, width)):
            compiled(schedule(func, SM_90))


@pytest.mark.parametrize("arch", every(2, ARCHS, 1))
def test_compiled_for_architectures(arch):
    profile = resolve(f"cuda -arch={arch}")
    funcs = [func for name in CHOSEN[::2] for func in CASES[name]()]
    scheduled = {f"kernel{i}": schedule(func, profile) for i, func in enumerate(funcs)}
    code = compile_source(lower(scheduled, profile).source, arch)
    assert all(taken.spilled_bytes == 0 for taken in code.resources.values())
    assert not instructions(code.cubin)["HMMA"], "products of fewer digits"
