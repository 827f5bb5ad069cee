"""Choices of float kernels: the rule's first, and every one computes the same."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from tvm.relax import op as R
from tvm_ffi import structural_equal

from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.float import is_tunable, rule, schedule, space
from gsb_tvm.schedules.float.space import MOST_CHOICES, Region, nearest
from gsb_tvm.targets.profile import Profile
from tests.effort import every
from tests.schedules.cuts import PARTS, Cut
from tests.schedules.float_functions import (
    Graph,
    call,
    compiled,
    inputs,
    lowered,
    ones,
    unscheduled,
)
from tests.schedules.levels import ALL, ARM, LEVELS, profile_of, runnable, target_of


def _dense(tokens: int, depth: int, columns: int, after: Graph = lambda y: y) -> list[Any]:
    weight, bias = ones(depth, columns), ones(columns)
    return lowered(lambda x: after(R.add(R.matmul(x, weight), bias)), (1, tokens, depth))


def _convolution(shape: tuple[int, ...], weight: tuple[int, ...], **options: Any) -> list[Any]:
    return lowered(lambda x: R.nn.relu(R.nn.conv2d(x, ones(*weight), **options)), shape)


def _depthwise(shape: tuple[int, ...], size: int, **options: Any) -> list[Any]:
    return _convolution(shape, (shape[1], 1, size, size), groups=shape[1], **options)


# Small integers: exact in any order.
EXACT: dict[str, Callable[[], list[Any]]] = {
    "dense": lambda: _dense(50, 37, 90),
    "dense of one row": lambda: lowered(lambda x: R.matmul(x, ones(64, 100)), (1, 64)),
    "dense and steps": lambda: _dense(13, 24, 50, lambda y: R.clip(R.multiply(y, y), -9, 9)),
    "batched": lambda: lowered(lambda x, y: R.matmul(x, y), (3, 40, 24), (3, 24, 70)),
    "convolution": lambda: _convolution((2, 5, 14, 14), (24, 5, 3, 3), padding=1),
    "patches": lambda: _convolution((1, 3, 32, 32), (40, 3, 8, 8), strides=8),
    "depthwise": lambda: _depthwise((1, 3, 17, 33), 3, padding=1, strides=2),
    "depthwise 7x7": lambda: _depthwise((1, 2, 9, 16), 7, padding=3),
    "max pool": lambda: lowered(
        lambda x: R.nn.max_pool2d(x, [2, 2], strides=[2, 2]), (1, 3, 14, 14)
    ),
    "sum of rows": lambda: lowered(lambda x: R.sum(x, axis=[-1]), (2, 7, 197)),
    "sum of columns": lambda: lowered(lambda x: R.sum(x, axis=[1]), (2, 7, 197)),
    "transposition": lambda: lowered(lambda x: R.permute_dims(x, (0, 2, 1)), (2, 19, 70)),
}

# Sums of up to 400 terms in another order, and functions within 4 ulp of the library's.
CLOSE: dict[str, Callable[[], list[Any]]] = {
    "layer norm": lambda: lowered(
        lambda x: R.nn.layer_norm(x, ones(384), ones(384), axes=[-1]), (1, 5, 384)
    ),
    "softmax": lambda: lowered(lambda x: R.nn.softmax(x, axis=-1), (1, 2, 5, 198)),
    "gelu": lambda: lowered(R.nn.gelu, (3, 145)),
    "dense and gelu": lambda: _dense(13, 24, 50, R.nn.gelu),
}
CASES = {**EXACT, **CLOSE}

# What the rules choose: as they do without a space, which records are compared with.
RULES = {
    ("dense", "znver5"): "columns=in_place lanes=16 rows=10 vectors=2 unroll=1 reads=panel "
    "outer=columns finish=unrolled",
    ("dense", "haswell"): "columns=in_place lanes=8 rows=5 vectors=2 unroll=1 reads=panel "
    "outer=columns finish=unrolled",
    ("dense and gelu", "cortex-a72"): "columns=in_place lanes=4 rows=13 vectors=2 unroll=1 "
    "reads=source outer=columns finish=loop",
    ("convolution", "x86-64"): "columns=patches lanes=4 rows=2 vectors=5 unroll=1 reads=source "
    "outer=columns block=14 finish=unrolled",
    ("patches", "cortex-a72"): "columns=written lanes=4 rows=10 vectors=2 unroll=1 reads=panel "
    "outer=columns finish=unrolled",
    ("depthwise", "haswell"): "lanes=8 rows=5 unroll=3",
    ("depthwise 7x7", "znver5"): "lanes=16 rows=5 unroll=1",
    ("sum of columns", "x86-64"): "lanes=4 columns=8",
    ("layer norm", "haswell"): "lanes=8 chains=4",
    ("gelu", "znver5"): "lanes=16",
}
NAMES = {
    "product": {"columns", "lanes", "rows", "vectors", "unroll", "reads", "outer"},
    "window": {"lanes", "rows"},
    "rows": {"lanes"},
}
OPTIONAL = {
    "product": {"block", "finish"},
    "window": {"unroll"},
    "rows": {"chains", "columns"},
}


@cache
def _functions(name: str) -> list[Any]:
    return CASES[name]()


@cache
def _unscheduled(name: str, number: int) -> np.ndarray:
    return unscheduled(CASES[name], number, name in EXACT)


def _check(name: str, level: Profile, seed: str) -> None:
    """A choice for each function of a case, done in parts, computes what the function does."""
    draw, exact = Random(seed), name in EXACT
    for number, func in enumerate(_functions(name)):
        choice = draw.choice(space(func, level))
        cut = Cut(draw.choice(PARTS), backwards=draw.random() < 0.5)
        scheduled = cut(schedule(func, level, choice))
        got = call(compiled(scheduled, level), func, inputs(func, 3, exact=exact))
        want = _unscheduled(name, number)
        tolerance = 0 if exact else 2.4e-5 * np.abs(want).max()
        message = f"{text_of(choice)} {cut}"
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=message)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", every(2, CASES))
def test_choices_compute_the_same(name: str, level: str) -> None:
    profile = runnable(target_of(level))
    for example in range(2):
        _check(name, profile, f"{name} {level} {example}")


@pytest.mark.parametrize("name", ["dense", "convolution", "depthwise", "softmax"])
def test_choices_compute_the_same_on_arm(name: str) -> None:
    _check(name, runnable(target_of(ARM[0])), name)


@pytest.mark.parametrize("level", ALL)
@pytest.mark.parametrize("name", CASES)
def test_the_rules_choice_is_the_first_of_a_space(name: str, level: str) -> None:
    profile = profile_of(target_of(level))
    for func in _functions(name):
        choices = space(func, profile)
        assert choices[0] == rule(func, profile)
        assert 1 <= len(choices) <= MOST_CHOICES
        assert len({text_of(choice) for choice in choices}) == len(choices)
        assert structural_equal(schedule(func, profile, choices[0]), schedule(func, profile))


@pytest.mark.parametrize(("name", "level"), RULES)
def test_rules_stay(name: str, level: str) -> None:
    *_, func = _functions(name)
    assert text_of(rule(func, profile_of(target_of(level)))) == RULES[name, level]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dense", "product"), ("convolution", "product"), ("max pool", "window"), ("gelu", "rows")],
)
def test_choices_say_what_matters(name: str, kind: str) -> None:
    for func in _functions(name):
        for choice in space(func, profile_of(target_of("haswell"))):
            assert NAMES[kind] <= choice.keys() <= NAMES[kind] | OPTIONAL[kind]


@pytest.mark.parametrize("level", ALL)
def test_register_tiles_fit(level: str) -> None:
    profile = profile_of(target_of(level))
    registers = 32 if profile.has_avx512 or profile.has_neon else 16
    for name in ("dense", "convolution", "patches"):
        for func in _functions(name):
            for choice in space(func, profile):
                r, v = int(choice["rows"]), int(choice["vectors"])
                assert r * v + v + 1 <= registers
                assert profile.lanes % int(choice["lanes"]) == 0


def test_another_choice_is_another_kernel() -> None:
    profile = profile_of(target_of("haswell"))
    for name in ("dense", "convolution", "depthwise", "layer norm"):
        (func,) = _functions(name)
        first, *others = space(func, profile)
        kernel = schedule(func, profile, first)
        assert not any(structural_equal(kernel, schedule(func, profile, o)) for o in others[::5])


def test_what_no_rule_knows_cannot_be_tuned() -> None:
    (pair,) = lowered(lambda x: R.argmax(x, axis=-1), (3, 7))
    (plain,) = lowered(R.abs, (3, 7))
    profile = profile_of(target_of("haswell"))
    assert not is_tunable(pair, profile)
    assert is_tunable(plain, profile)


@dataclass(frozen=True)
class _Pair:
    a: int = 0
    b: int = 0


def test_a_space_begins_near_the_rule_and_ends() -> None:
    region = Region(0, _Pair(), [[{"a": i} for i in range(20)], [{"b": i} for i in range(20)]])
    far = Region(3, _Pair(-1), [])
    found = nearest([region, far])
    assert found[:3] == [_Pair(0, 0), _Pair(0, 1), _Pair(1, 0)]
    assert found.index(_Pair(-1)) == 10
    assert len(found) == MOST_CHOICES
