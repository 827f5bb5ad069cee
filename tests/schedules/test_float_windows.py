"""Convolutions and pooling: the numbers of the unscheduled PrimFunc, on every level, in parts."""

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import te, topi
from tvm.relax import op as R

from gsb_tvm.schedules.float import product, schedule, sliding
from gsb_tvm.schedules.float.planes import Planes
from gsb_tvm.schedules.float.tiles import rows_of_block
from gsb_tvm.schedules.sharing import MOST_PARTS
from gsb_tvm.schedules.vector import prim_func
from gsb_tvm.targets.profile import Profile
from tests.effort import every
from tests.schedules.cuts import Cut
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


def _convolution(shape: tuple[int, ...], kernel: int, channels: int, **options: Any) -> list[Any]:
    weight = ones(channels, shape[1] // options.get("groups", 1), kernel, kernel)
    return lowered(lambda x: R.nn.conv2d(x, weight, **options), shape)


def _int8_convolution() -> list[Any]:
    x = te.placeholder((1, 3, 19, 19), name="x")
    weight = te.placeholder((8, 3, 3, 3), "int8", name="weight")
    alpha = te.placeholder((8, 1, 1, 1), name="alpha")
    scaled = topi.multiply(topi.cast(weight, "float32"), alpha)
    return [te.create_prim_func([x, weight, alpha, topi.nn.conv2d_nchw(x, scaled, 2, 1, 1)])]


def _gelu_tokens(x: Any) -> Any:
    """What follows is not at the convolution's own coordinates."""
    y = R.add(R.nn.conv2d(x, ones(6, 4, 3, 3), padding=1), ones(1, 6, 1, 1))
    return R.nn.relu(R.permute_dims(R.reshape(y, (1, 6, 20 * 5)), (0, 2, 1)))


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
    "3x3 of 5 x 1": lambda: _depthwise((1, 3, 5, 1), 3, padding=1),
    "3x3, stride 2, of 5 x 3": lambda: _depthwise((1, 3, 5, 3), 3, padding=1, strides=2),
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

# Channels are summed: matrix products.
SUMMED = {
    "3x3 of 7": lambda: _convolution((1, 5, 7, 7), 3, 6, padding=1),
    "3x3 of two images": lambda: _convolution((2, 5, 14, 14), 3, 24, padding=1),
    "3x3, stride 2, of 15 x 17": lambda: _convolution((1, 4, 15, 17), 3, 9, padding=1, strides=2),
    "3x3, dilation 2": lambda: _convolution((1, 4, 15, 17), 3, 9, padding=2, dilation=2),
    "7x7, stride 2, stem": lambda: _convolution((1, 3, 40, 40), 7, 16, padding=3, strides=2),
    "2x2, stride 2": lambda: _convolution((1, 4, 12, 12), 2, 16, strides=2),
    "1x1": lambda: _convolution((1, 9, 7, 7), 1, 13),
    "1x1 of two images": lambda: _convolution((2, 9, 5, 7), 1, 13),
    "1x1, stride 2": lambda: _convolution((1, 9, 9, 9), 1, 13, strides=2),
    "in three blocks": lambda: _convolution((1, 16, 21, 21), 3, 8, padding=1),
    "patches of 5": lambda: _convolution((1, 3, 20, 20), 5, 8, strides=5),
    "uneven padding": lambda: _convolution((1, 3, 10, 21), 3, 7, padding=(0, 1, 2, 1)),
    "3x3 of 5 x 1": lambda: _convolution((1, 3, 5, 1), 3, 4, padding=1),
    "int8 weight": _int8_convolution,
    "three groups of four": lambda: _convolution((1, 15, 9, 11), 3, 12, padding=1, groups=3),
    "two groups, stride 2": lambda: _convolution((1, 6, 15, 17), 3, 16, strides=2, groups=2),
    "summed, to tokens": lambda: lowered(_gelu_tokens, (1, 4, 20, 5)),
}

# Sums of 9 terms that differ in their order.
CLOSE = {
    "average 3x3": lambda: lowered(
        lambda x: R.nn.avg_pool2d(x, (3, 3), padding=1, count_include_pad=False), (1, 3, 7, 7)
    ),
    "average 3x3, stride 2": lambda: lowered(
        lambda x: R.nn.avg_pool2d(x, (3, 3), strides=2, padding=1), (2, 3, 33, 35)
    ),
}
WINDOWS = {**SLIDING, **CLOSE}
CASES = {**WINDOWS, **{f"channels, {name}": case for name, case in SUMMED.items()}}


@pytest.mark.parametrize("name", every(2, CASES))
def test_same_numbers(level: Profile, name: str) -> None:
    exact = name not in CLOSE
    for number, func in enumerate(CASES[name]()):
        scheduled = schedule(func, level)
        got = call(compiled(scheduled, level), func, inputs(func, 3, exact=exact))
        want = unscheduled(CASES[name], number, exact)
        tolerance = 0 if exact else 9 * 2**-23 * np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", every(2, CASES))
def test_parts_do_the_whole_work(name: str) -> None:
    level = profile_of("llvm -mcpu=x86-64")
    for func in CASES[name]():
        scheduled, data = schedule(func, level), inputs(func, 3, exact=False)
        whole = call(compiled(scheduled, level), func, data)
        for cut in (Cut(3, backwards=True), Cut(MOST_PARTS)):
            shared = call(compiled(cut(scheduled), level), func, data)
            np.testing.assert_array_equal(shared, whole, err_msg=str(cut))


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_recognised(name: str) -> None:
    assert any(sliding.match(func) is not None for func in WINDOWS[name]())


@pytest.mark.parametrize("name", SUMMED)
def test_sums_over_channels_are_products(name: str) -> None:
    assert any(product.match(func) is not None for func in SUMMED[name]())


def test_large_images_come_in_blocks() -> None:
    """21 rows of 21 positions of 144 taps: 254 kB, and half of the second cache has 128 kB."""
    profile = profile_of("llvm -mcpu=x86-64")
    assert profile.l2_bytes // 2 == 131072
    assert rows_of_block(21, 21, profile.lanes, 131072 // (4 * 144)) == 7


def test_leaves_other_windows_alone() -> None:
    """A stride that shuffles do not split, and channels that are summed."""
    (wide,) = _depthwise((1, 3, 25, 25), 5, strides=5)
    assert sliding.match(wide) is None
    (few,) = _convolution((1, 12, 9, 9), 3, 8, groups=4)
    assert product.match(few) is None
    (dense,) = lowered(lambda x: R.nn.conv2d(x, ones(4, 3, 3, 3)), (1, 3, 9, 9))
    assert sliding.match(dense) is None


def test_sums_run_on_vectors(level: Profile) -> None:
    register = {16: "zmm", 8: "ymm", 4: "xmm"}[level.lanes]
    (func,) = CASES["3x3 of 17 x 33"]()
    source = compiled(schedule(func, level), level).mod.inspect_source("s")
    fused = "vfmadd" if level.has_fma else "mulps"
    sums = [line for line in source.splitlines() if fused in line and register in line]
    # 9 rows in two tiles of 5: 3 x 3 x 5 products.
    assert len(sums) >= 45
    assert "vfmadd231ss" not in source


def test_padding_goes_on_behind_an_image() -> None:
    """Where the last vectors read: whatever else is there may be denormal, and slow to multiply."""
    profile = profile_of("llvm -mcpu=x86-64")
    (func,) = CASES["3x3 of 7"]()
    plan = sliding.match(func)
    assert plan is not None
    planes = Planes(plan.window, profile.lanes)
    assert planes.room == 9 * 9 + profile.lanes
    tensors = [("image", (planes.room,), "float32")]
    clear = prim_func(tensors, lambda image: planes.clear(image, []))
    image = tvm.runtime.tensor(np.full(planes.room, 1e-40, np.float32))
    compiled(clear, profile)["main"](image)
    np.testing.assert_array_equal(image.numpy(), 0)


def test_a_maximum_keeps_infinities(level: Profile) -> None:
    (func,) = CASES["max 3x3, stride 2"]()
    (x,) = inputs(func, 3, exact=True)
    x[0, 0, :9], x[0, 1, 20, 20] = -np.inf, np.inf
    got = call(compiled(schedule(func, level), level), func, [x])
    lowest = np.finfo(np.float32).min
    assert got[0, 0, 1, 1] == lowest  # what TVM starts a maximum from
    assert (got[0, 1] == np.inf).sum() == 1
