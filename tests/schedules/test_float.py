"""Float rules: the numbers of the unscheduled PrimFunc, and vector instructions, on every level."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import relax, te, topi
from tvm.relax import op as R

from gsb_tvm.schedules.float import RULES, product, rows, schedule, sliding
from gsb_tvm.schedules.sharing import MOST_PARTS, is_phase, statements
from gsb_tvm.targets.profile import Profile
from tests.effort import every, examples
from tests.schedules.cuts import Cut
from tests.schedules.float_functions import (
    Graph,
    call,
    compiled,
    fused,
    inputs,
    lowered,
    ones,
    unscheduled,
)
from tests.schedules.levels import ARM, LEVELS, profile_of, runnable, target_of

Array = np.ndarray


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Profile:
    return runnable(f"llvm -mcpu={request.param}")


def _dequantised(*, rows: int = 0, image: int = 0) -> list[Any]:
    """A weight of int8 and a scale per channel that feeds a dense layer, or patches."""
    if image:
        x = te.placeholder((1, 3, image, image), name="x")
        weight = te.placeholder((24, 3, 8, 8), "int8", name="weight")
        alpha = te.placeholder((24, 1, 1, 1), name="alpha")
        scaled = topi.multiply(topi.cast(weight, "float32"), alpha)
        out = topi.nn.conv2d_nchw(x, scaled, 8, 0, 1)
    else:
        x = te.placeholder((rows, 33), name="x")
        weight = te.placeholder((33, 50), "int8", name="weight")
        alpha = te.placeholder((50,), name="alpha")
        out = topi.matmul(x, topi.multiply(topi.cast(weight, "float32"), alpha))
    return [te.create_prim_func([x, weight, alpha, out])]


def _patches(image: int, patch: int, width: int) -> Graph:
    tokens = (image // patch) ** 2

    def graph(x: Any) -> Any:
        y = R.nn.conv2d(x, ones(width, 3, patch, patch), strides=patch)
        y = R.reshape(R.add(y, ones(1, width, 1, 1)), (1, width, tokens))
        y = R.concat([ones(1, 1, width), R.permute_dims(y, (0, 2, 1))], axis=1)
        return R.add(y, ones(1, tokens + 1, width))

    return graph


def _dense(depth: int, columns: int) -> Graph:
    return lambda x: R.add(R.matmul(x, ones(depth, columns)), ones(columns))


def _layer_norm(width: int) -> Graph:
    return lambda x: R.nn.layer_norm(x, ones(width), ones(width), axes=[-1], epsilon=1e-6)


# Sums of small integers are exact in any order: these must agree to the last bit.
EXACT: dict[str, Callable[[], list[Any]]] = {
    "dense 7x96x10": lambda: lowered(_dense(96, 10), (1, 7, 96)),
    "dense 13x33x77": lambda: lowered(_dense(33, 77), (1, 13, 33)),
    "dense 50x64x192": lambda: lowered(_dense(64, 192), (1, 50, 64)),
    "vector 1x64x100": lambda: lowered(_dense(64, 100), (1, 64)),
    "vector 2x64x1000": lambda: lowered(_dense(64, 1000), (2, 64)),
    "column 9x40x1": lambda: lowered(_dense(40, 1), (1, 9, 40)),
    "live batched": lambda: lowered(lambda x, y: R.matmul(x, y), (2, 3, 7, 24), (2, 3, 24, 9)),
    "live transposed": lambda: lowered(
        lambda x, y: R.matmul(x, R.permute_dims(y, (0, 2, 1))), (2, 7, 24), (2, 11, 24)
    ),
    "int8 dense": lambda: _dequantised(rows=7),
    "int8 vector": lambda: _dequantised(rows=1),
    "int8 patches": lambda: _dequantised(image=32),
    "patches 32/8": lambda: lowered(_patches(32, 8, 96), (1, 3, 32, 32)),
    "patches 28/14": lambda: lowered(_patches(28, 14, 20), (1, 3, 28, 28)),
    "padded convolution": lambda: lowered(
        lambda x: R.nn.conv2d(x, ones(24, 5, 3, 3), padding=1), (2, 5, 14, 14)
    ),
    "depthwise convolution": lambda: lowered(
        lambda x: R.nn.conv2d(x, ones(24, 1, 3, 3), padding=1, groups=24), (1, 24, 7, 7)
    ),
    "grouped convolution": lambda: lowered(
        lambda x: R.nn.conv2d(x, ones(8, 3, 3, 3), padding=1, groups=4), (1, 12, 7, 7)
    ),
    "concat of columns": lambda: lowered(lambda x, y: R.concat([x, y], axis=1), (3, 7), (3, 20)),
    "transposition": lambda: lowered(lambda x: R.permute_dims(x, (0, 2, 1)), (2, 19, 33)),
    "heads": lambda: lowered(
        lambda x: R.permute_dims(R.reshape(x, (1, 7, 3, 2, 24)), (2, 0, 3, 1, 4)), (1, 7, 144)
    ),
    "sum of rows": lambda: lowered(lambda x: R.sum(x, axis=[-1]), (2, 7, 197)),
    "sum of columns": lambda: lowered(lambda x: R.sum(x, axis=[1]), (2, 7, 197)),
    "sum of all": lambda: lowered(R.sum, (3, 7)),
    "sum of all, in slices": lambda: lowered(R.sum, (1, 70, 19, 17)),
    "largest of all, in slices": lambda: lowered(
        lambda x: R.max(x, axis=[1, 2], keepdims=True), (1, 130, 150)
    ),
    "largest": lambda: lowered(lambda x: R.max(x, axis=[-1], keepdims=True), (3, 45)),
    "smallest": lambda: lowered(lambda x: R.min(x, axis=[0, 2]), (3, 45, 7)),
    "max pool": lambda: lowered(
        lambda x: R.nn.max_pool2d(x, [2, 2], strides=[2, 2]), (1, 3, 14, 14)
    ),
    "product of columns": lambda: lowered(lambda x: R.prod(x, axis=[1]), (2, 3, 7)),
    "choice": lambda: lowered(lambda x: R.where(R.greater(x, ones(45)), x, ones(45)), (3, 45)),
}  # fmt: skip

# Sums of up to 400 terms in another order, and functions within 4 ulp of the library's.
CLOSE: dict[str, Callable[[], list[Any]]] = {
    "layer norm 2x384": lambda: lowered(_layer_norm(384), (1, 2, 384)),
    "layer norm 7x96": lambda: lowered(_layer_norm(96), (1, 7, 96)),
    "layer norm 3x5": lambda: lowered(_layer_norm(5), (1, 3, 5)),
    "softmax 7": lambda: lowered(lambda x: R.nn.softmax(x, axis=-1), (2, 3, 7, 7)),
    "softmax 198": lambda: lowered(lambda x: R.nn.softmax(x, axis=-1), (1, 2, 5, 198)),
    "softmax 40000": lambda: lowered(lambda x: R.nn.softmax(x, axis=-1), (1, 40000)),
    "softmax of columns": lambda: lowered(lambda x: R.nn.softmax(x, axis=1), (2, 9, 33)),
    "variance 3 rows": lambda: lowered(lambda x: R.variance(x, axis=[-1]), (1, 3, 40)),
    "variance 20 rows": lambda: lowered(lambda x: R.variance(x, axis=[-1]), (1, 20, 41)),
    "mean": lambda: lowered(lambda x: R.mean(x, axis=[1]), (1, 7, 33)),
    "gelu": lambda: lowered(R.nn.gelu, (3, 45)),
    "silu": lambda: lowered(R.nn.silu, (3, 45)),
    "dense and gelu": lambda: lowered(lambda x: R.nn.gelu(_dense(24, 50)(x)), (1, 13, 24)),
    "average pool": lambda: lowered(
        lambda x: R.nn.avg_pool2d(x, [2, 2], strides=[2, 2]), (1, 3, 14, 14)
    ),
}


@cache
def _functions(name: str) -> list[Any]:
    return (EXACT if name in EXACT else CLOSE)[name]()


@pytest.mark.parametrize("name", EXACT)
def test_same_numbers(level: Profile, name: str) -> None:
    for number, func in enumerate(_functions(name)):
        scheduled = schedule(func, level)
        assert scheduled is not None
        got = call(compiled(scheduled, level), func, inputs(func, 3, exact=True))
        np.testing.assert_array_equal(got, unscheduled(EXACT[name], number, True))


@pytest.mark.parametrize("name", CLOSE)
def test_close_numbers(level: Profile, name: str) -> None:
    for number, func in enumerate(_functions(name)):
        scheduled = schedule(func, level)
        assert scheduled is not None
        got = call(compiled(scheduled, level), func, inputs(func, 3, exact=False))
        want = unscheduled(CLOSE[name], number, False)
        # 400 terms: 400 * 2**-24 = 2.4e-5 of the largest magnitude at worst.
        np.testing.assert_allclose(got, want, rtol=0, atol=2.4e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", ["dense 50x64x192", "int8 patches", "softmax 198", "gelu"])
def test_numbers_on_arm(name: str) -> None:
    """One of each rule: the others differ in loops, not in instructions."""
    level = runnable(target_of(ARM[0]))
    (test_same_numbers if name in EXACT else test_close_numbers)(level, name)


@pytest.mark.parametrize("name", every(2, [*EXACT, *CLOSE]))
def test_parts_do_the_whole_work(name: str) -> None:
    """The same numbers to the last bit, however many parts there are: each sum is one part's."""
    level = profile_of("llvm -mcpu=x86-64")
    for func in _functions(name):
        scheduled = schedule(func, level)
        data = inputs(func, 3, exact=name in EXACT)
        whole = call(compiled(scheduled, level), func, data)
        for cut in (Cut(3, backwards=True), Cut(MOST_PARTS)):
            shared = call(compiled(cut(scheduled), level), func, data)
            np.testing.assert_array_equal(shared, whole, err_msg=str(cut))


@pytest.mark.parametrize("name", [*EXACT, *CLOSE])
def test_kernels_are_phases_and_scratch(name: str) -> None:
    for func in _functions(name):
        *scratch, last = statements(schedule(func, profile_of("llvm -mcpu=x86-64")))
        assert is_phase(last)
        assert all(is_phase(each) or isinstance(each, tvm.tirx.AllocBuffer) for each in scratch)


@pytest.mark.parametrize(
    ("name", "phases"),
    [("sum of all", 1), ("sum of all, in slices", 2), ("softmax 198", 1), ("softmax 40000", 4)],
)
def test_a_long_row_is_shared_stage_by_stage(name: str, phases: int) -> None:
    (func,) = _functions(name)
    scheduled = statements(schedule(func, profile_of("llvm -mcpu=x86-64")))
    assert sum(map(is_phase, scheduled)) == phases


@settings(max_examples=examples(12), deadline=None, derandomize=True)
@given(m=st.integers(1, 40), k=st.integers(1, 70), n=st.integers(1, 120), seed=st.integers(0, 99))
def test_products_of_any_shape(level: Profile, m: int, k: int, n: int, seed: int) -> None:
    (func,) = lowered(lambda x, y: R.matmul(x, y), (m, k), (k, n))
    x, y = inputs(func, seed, exact=True)
    scheduled = schedule(func, level)
    np.testing.assert_array_equal(call(compiled(scheduled, level), func, [x, y]), x @ y)


def test_sums_of_a_patch_are_chunked(level: Profile) -> None:
    """768 products: root mean square error 0.49e-6 when added up in a row, 0.15e-6 in chunks."""
    (func,) = lowered(lambda x, w: R.nn.conv2d(x, w, strides=16), (1, 3, 96, 96), (64, 3, 16, 16))
    x, w = inputs(func, 3, exact=False)
    got = call(compiled(schedule(func, level), level), func, [x, w])
    patches = x.astype(np.float64).reshape(3, 6, 16, 6, 16).transpose(1, 3, 0, 2, 4)
    want = np.einsum("ijcuv,ocuv->oij", patches, w)
    assert np.sqrt(np.mean((got[0] - want) ** 2) / np.mean(want**2)) < 0.25e-6


def test_products_run_on_vectors(level: Profile) -> None:
    fused_add = "vfmadd231ps" if level.has_fma else "mulps"
    register = {16: "zmm", 8: "ymm", 4: "xmm"}[level.lanes]
    for name in ("dense 50x64x192", "patches 32/8", "vector 2x64x1000"):
        func = max(_functions(name), key=lambda f: bool(product.match(f)))
        source = compiled(schedule(func, level), level).mod.inspect_source("s")
        sums = [line for line in source.splitlines() if f"\t{fused_add}" in line]
        assert len([line for line in sums if register in line]) >= 8
        assert "mulss" not in source
        assert "vfmadd231ss" not in source


@pytest.mark.parametrize("name", ["gelu", "silu", "layer norm 2x384", "softmax 198"])
def test_rows_run_on_vectors(level: Profile, name: str) -> None:
    (func,) = _functions(name)
    source = compiled(schedule(func, level), level).mod.inspect_source("s")
    assert "mulps" in source
    assert not any(f"{library}f" in source for library in ("exp", "erf", "tanh"))


@pytest.mark.parametrize("name", ["dense 7x96x10", "patches 32/8", "softmax 198", "gelu"])
def test_compiles_for_arm(name: str) -> None:
    profile = profile_of("llvm -mcpu=cortex-a72")
    for func in _functions(name):
        source = compiled(schedule(func, profile), profile).mod.inspect_source("s")
        assert ".4s" in source


def test_runs_inside_a_relax_module(level: Profile) -> None:
    def graph(x: Any) -> Any:
        y = R.nn.layer_norm(_patches(32, 8, 96)(x), ones(96), ones(96), axes=[-1])
        return R.nn.softmax(R.nn.gelu(_dense(96, 10)(y)), axis=-1)

    def built(*, scheduled: bool) -> Any:
        module = fused(graph, (1, 3, 32, 32))
        for name, func in module.functions.items():
            if scheduled and isinstance(func, tvm.tirx.PrimFunc):
                module[name] = schedule(func, level)
        executable = tvm.compile(module, target=level.tvm_target())
        return relax.VirtualMachine(executable, tvm.cpu())

    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    got, want = (
        built(scheduled=scheduled)["main"](tvm.runtime.tensor(image)).numpy()
        for scheduled in (True, False)
    )
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_rules_split_products_from_rows(level: Profile) -> None:
    assert RULES == (product.match, sliding.match, rows.match)
    (dense,) = _functions("dense 7x96x10")
    (norm,) = _functions("layer norm 7x96")
    assert product.match(dense) is not None
    assert product.match(norm) is None


def test_leaves_alone_what_it_cannot_read(level: Profile) -> None:
    (pair,) = lowered(lambda x: R.argmax(x, axis=-1), (3, 7))
    assert schedule(pair, level) is None
    length = tvm.tirx.Var("n", "int64")
    (dynamic,) = lowered(R.abs, (length,))
    assert schedule(dynamic, level) is None


def test_keeps_every_output(level: Profile) -> None:
    """A product and its doubled form, both outputs of one PrimFunc."""
    x, y = te.placeholder((7, 24), name="x"), te.placeholder((24, 9), name="y")
    total = topi.matmul(x, y)
    func = te.create_prim_func([x, y, total, topi.add(total, total)])
    a, b = np.ones((7, 24), np.float32), np.full((24, 9), 2, np.float32)
    outputs = [tvm.runtime.tensor(np.zeros((7, 9), np.float32)) for _ in range(2)]
    library = compiled(schedule(func, level), level)
    library["main"](tvm.runtime.tensor(a), tvm.runtime.tensor(b), *outputs)
    np.testing.assert_array_equal(outputs[0].numpy(), a @ b)
    np.testing.assert_array_equal(outputs[1].numpy(), 2 * (a @ b))
