"""Convolutions and pooling: the numbers of the unscheduled PrimFunc, on every level, in parts."""

from typing import Any

import numpy as np
import pytest
from tvm import tirx
from tvm.relax import op as R

from gsb_tvm.schedules.float import schedule, sliding
from gsb_tvm.schedules.float.tiles import rows_at_once
from gsb_tvm.schedules.sharing import with_parts
from gsb_tvm.targets.profile import Profile
from tests.schedules.float_functions import call, compiled, inputs, lowered, ones, unscheduled
from tests.schedules.levels import LEVELS, profile_of, runnable


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Profile:
    return runnable(f"llvm -mcpu={request.param}")


def _depthwise(shape: tuple[int, ...], kernel: int, **options: Any) -> list[Any]:
    channels = shape[1] * options.pop("multiplier", 1)
    return lowered(
        lambda x: R.nn.conv2d(x, ones(channels, 1, kernel, kernel), groups=shape[1], **options),
        shape,
    )


def _activated(x: Any) -> Any:
    y = R.nn.conv2d(x, ones(6, 1, 3, 3), padding=1, groups=6)
    return R.nn.relu(R.add(y, ones(1, 6, 1, 1)))


def _tokens(x: Any) -> Any:
    """What follows is not at the convolution's own coordinates."""
    y = R.nn.conv2d(x, ones(6, 1, 3, 3), padding=1, groups=6)
    return R.permute_dims(R.reshape(y, (1, 6, 20 * 5)), (0, 2, 1))


# One image on its own; small integers, exact in any order.
SLIDING = {
    "3x3 of 7": lambda: _depthwise((2, 5, 7, 7), 3, padding=1),
    "3x3 of 17 x 33": lambda: _depthwise((1, 3, 17, 33), 3, padding=1),
    "3x3, stride 2, of 14": lambda: _depthwise((1, 6, 14, 14), 3, padding=1, strides=2),
    "3x3, stride 2, of 15 x 66": lambda: _depthwise((1, 3, 15, 66), 3, padding=1, strides=2),
    "3x3, stride 3, of 50": lambda: _depthwise((1, 2, 50, 50), 3, strides=3),
    "3x3, dilation 2": lambda: _depthwise((1, 3, 19, 20), 3, padding=2, dilation=2),
    "5x5 of 28": lambda: _depthwise((1, 3, 28, 28), 5, padding=2),
    "7x7 of 16": lambda: _depthwise((1, 2, 16, 16), 7, padding=3),
    "7x7 of 7, one position": lambda: _depthwise((1, 4, 7, 7), 7),
    "2x2, stride 2, of 9": lambda: _depthwise((1, 4, 9, 9), 2, strides=2),
    "uneven padding": lambda: _depthwise((1, 3, 10, 21), 3, padding=(0, 1, 2, 1)),
    "two channels of one": lambda: _depthwise((1, 3, 9, 9), 3, padding=1, multiplier=2),
    "with bias and relu": lambda: lowered(_activated, (1, 6, 20, 5)),
    "to tokens": lambda: lowered(_tokens, (1, 6, 20, 5)),
    "max 3x3, stride 2": lambda: lowered(
        lambda x: R.nn.max_pool2d(x, (3, 3), strides=2, padding=1), (1, 3, 35, 35)
    ),
    "max 2x2 of 14": lambda: lowered(
        lambda x: R.nn.max_pool2d(x, (2, 2), strides=2), (1, 3, 14, 14)
    ),
    "max 1 x 3": lambda: lowered(lambda x: R.nn.max_pool2d(x, (1, 3)), (1, 3, 6, 40)),
    "max, rounded up": lambda: lowered(
        lambda x: R.nn.max_pool2d(x, (3, 3), strides=2, padding=1, ceil_mode=True), (1, 3, 12, 12)
    ),
    "average 2x2": lambda: lowered(
        lambda x: R.nn.avg_pool2d(x, (2, 2), strides=2), (1, 3, 36, 36)
    ),
}  # fmt: skip

# Sums of 9 terms that differ in their order.
CLOSE = {
    "average 3x3": lambda: lowered(
        lambda x: R.nn.avg_pool2d(x, (3, 3), padding=1, count_include_pad=False), (1, 3, 7, 7)
    ),
    "average 3x3, stride 2": lambda: lowered(
        lambda x: R.nn.avg_pool2d(x, (3, 3), strides=2, padding=1), (2, 3, 33, 35)
    ),
}
CASES = {**SLIDING, **CLOSE}


@pytest.mark.parametrize("name", CASES)
def test_same_numbers(level: Profile, name: str) -> None:
    exact = name in SLIDING
    for number, func in enumerate(CASES[name]()):
        scheduled = schedule(func, level)
        got = call(compiled(scheduled, level), func, inputs(func, 3, exact=exact))
        want = unscheduled(CASES[name], number, exact)
        tolerance = 0 if exact else 9 * 2**-23 * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("parts", [3, 64])
@pytest.mark.parametrize("name", CASES)
def test_parts_do_the_whole_work(name: str, parts: int) -> None:
    level = profile_of("llvm -mcpu=x86-64")
    for func in CASES[name]():
        scheduled, data = schedule(func, level), inputs(func, 3, exact=False)
        whole = call(compiled(scheduled, level), func, data)
        shared = call(compiled(with_parts(scheduled, parts), level), func, data)
        np.testing.assert_array_equal(shared, whole)


@pytest.mark.parametrize("name", CASES)
def test_windows_are_recognised(name: str) -> None:
    profile = profile_of("llvm -mcpu=x86-64")
    assert any(sliding.apply(func, profile) is not None for func in CASES[name]())


def test_leaves_other_windows_alone() -> None:
    """A stride that shuffles do not split, and channels that are summed."""
    profile = profile_of("llvm -mcpu=x86-64")
    (wide,) = _depthwise((1, 3, 25, 25), 5, strides=5)
    assert sliding.apply(wide, profile) is None
    (dense,) = lowered(lambda x: R.nn.conv2d(x, ones(4, 3, 3, 3)), (1, 3, 9, 9))
    assert sliding.apply(dense, profile) is None


def test_sums_run_on_vectors(level: Profile) -> None:
    register = {16: "zmm", 8: "ymm", 4: "xmm"}[level.lanes]
    (func,) = CASES["3x3 of 17 x 33"]()
    source = compiled(schedule(func, level), level).mod.inspect_source("s")
    fused = "vfmadd" if level.has_fma else "mulps"
    sums = [line for line in source.splitlines() if fused in line and register in line]
    # 9 rows in two tiles of 5: 3 x 3 x 5 products.
    assert len(sums) >= 45
    assert "vfmadd231ss" not in source


@pytest.mark.parametrize("height", range(1, 40))
def test_tiles_of_rows_are_alike(height: int) -> None:
    rows = rows_at_once(height)
    tiles = -(-height // rows)
    assert 1 <= rows <= 8
    assert tiles == -(-height // 8)
    assert tiles * rows - height < tiles


def test_a_maximum_keeps_infinities(level: Profile) -> None:
    (func,) = CASES["max 3x3, stride 2"]()
    (x,) = inputs(func, 3, exact=True)
    x[0, 0, :9], x[0, 1, 20, 20] = -np.inf, np.inf
    got = call(compiled(schedule(func, level), level), func, [x])
    lowest = np.finfo(np.float32).min
    assert got[0, 0, 1, 1] == lowest  # what TVM starts a maximum from
    assert (got[0, 1] == np.inf).sum() == 1
    assert isinstance(func, tirx.PrimFunc)
