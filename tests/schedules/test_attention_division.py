"""The three-instruction division: every pair of significands its proof leaves open divides right.

See :func:`gsb_tvm.schedules.attention_planes.division.markstein`.
"""

from functools import cache

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes.division import markstein
from gsb_tvm.targets import resolve
from tests.schedules.levels import runnable

ONE = 1 << 23  # significands are integers in [2**23, 2**24)
COUNT = 1 << 16
LANES = 8


@cache
def quotients():
    """Kernel that divides ``COUNT`` numerators each by its own denominator."""
    profile = resolve("llvm -mcpu=haswell")
    tensors = [(name, (COUNT,), "float32") for name in ("x", "s", "q")]

    def body(x, s, q):
        with T.serial(COUNT // LANES) as i, T.serial(LANES) as j:
            denominator = v.bind(s[i * LANES + j])
            reciprocal = v.bind(tirx.const(1.0, "float32") / denominator)
            numerators = v.bind(v.load(x, i * LANES, lanes=LANES))
            found = v.local((LANES,), "float32")
            v.store(found, markstein(numerators, denominator, reciprocal, LANES), 0, lanes=LANES)
            v.put(q, found[j], i * LANES + j)

    module = tvm.IRModule({"main": v.prim_func(tensors, body)})
    return tvm.compile(module, target=profile.tvm_target())["main"]


def divide(x, s):
    """Quotients by the kernel, padded to whole calls."""
    out = []
    for start in range(0, len(x), COUNT):
        parts = [np.ones(COUNT, dtype=np.float32) for _ in range(3)]
        n = len(x[start : start + COUNT])
        parts[0][:n], parts[1][:n] = x[start : start + n], s[start : start + n]
        tensors = [tvm.runtime.tensor(part) for part in parts]
        quotients()(*tensors)
        out.append(tensors[-1].numpy()[:n])
    return np.concatenate(out)


def inverse(odd):
    """Inverse of odd integers modulo 2**32, by Newton's iteration."""
    x = odd.astype(np.uint64)
    for _ in range(5):
        x = (x * (2 - odd.astype(np.uint64) * x)) & 0xFFFFFFFF
    return x.astype(np.int64)


def open_pairs(divisors):
    """Numerators and divisors near a tie: ``A * 2**c - M * B == k`` with odd M and 0 < |k| <= 8."""
    found = []
    for power in range(4):  # 2**power divides B, so it divides k
        b = divisors[(divisors & (2 * (1 << power) - 1)) == 1 << power]
        for c in (24, 25):  # quotient above 1, below 1
            modulus = 1 << (c - power)
            for k in [k for k in range(-8, 9) if k and k % (1 << power) == 0]:
                least = (-(k >> power) * inverse(b >> power)) % modulus
                for m in range(0, 1 << 25, modulus):
                    tie = least + m
                    a = (tie * b + k) >> c
                    inside = (tie % 2 == 1) & (tie > 1 << 24) & (tie < 1 << 25)
                    inside &= (a >= ONE) & (a < 2 * ONE) & ((a >= b) == (c == 24))
                    assert ((tie * b + k) % (1 << c) == 0).all()
                    found.append(np.stack([a[inside], b[inside]]))
    return np.concatenate(found, axis=1)


def check(divisors):
    """Divide every open pair; return how many there were."""
    a, b = open_pairs(divisors).astype(np.float32) / np.float32(ONE)
    np.testing.assert_array_equal(divide(a, b), a / b)
    return len(a)


def test_sample():
    runnable("llvm -mcpu=haswell")  # the division takes FMA
    rng = np.random.default_rng(5)
    assert check(rng.integers(ONE, 2 * ONE, 1 << 15)) > 1 << 16


def test_random_and_zero():
    runnable("llvm -mcpu=haswell")  # the division takes FMA
    rng = np.random.default_rng(6)
    x = np.exp(-69 * rng.random(1 << 18)).astype(np.float32)
    x[::100] = 0
    s = (1 + 4096 * rng.random(len(x)) ** 4).astype(np.float32)
    np.testing.assert_array_equal(divide(x, s), x / s)


@pytest.mark.slow
def test_all():
    runnable("llvm -mcpu=haswell")  # the division takes FMA
    step = 1 << 17
    assert sum(check(np.arange(b, b + step)) for b in range(ONE, 2 * ONE, step)) == 46_517_418
