"""Instructions of Neon: that they do what is said, and that LLVM finds them."""

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.neon import packed
from gsb_tvm.schedules.neon_walk import Walk, walking
from gsb_tvm.schedules.packing import word_of
from gsb_tvm.targets import Profile
from tests.schedules.levels import ALL, ARM, compiled, profile_of, runnable, target_of

ROWS = 256  # too many for LLVM to unroll all


def compares(profile: Profile, count: int) -> tirx.PrimFunc:
    """Rows of 32 floats compared with 0.5, ``count`` rows at a time; 0 for one at a time."""

    def body(x: v.Buffer, y: v.Buffer) -> None:
        def mask(row: v.Expr) -> v.Expr:
            return v.load(x, row, 0, lanes=32) > v.splat(0.5, 32)

        with T.serial(0, ROWS // max(count, 1)) as i:
            if count == 0:
                v.put(y, word_of(mask(i), profile), i)
                return
            words = packed([mask(i * count + k) for k in range(count)])
            if count == 1:
                v.put(y, words, i)
            else:
                v.store(y, words, i * count, lanes=count)

    return v.prim_func([("x", (ROWS, 32), "float32"), ("y", (ROWS,), "uint32")], body)


def check(library: Any) -> None:
    x = np.random.default_rng(0).random((ROWS, 32)).astype(np.float32)
    x[0], x[1] = 0, 1
    tensors = [tvm.runtime.tensor(a) for a in (x, np.zeros(ROWS, np.uint32))]
    library["main"](*tensors)
    expected = np.packbits(x > 0.5, axis=1, bitorder="little").view(np.uint32)[:, 0]
    np.testing.assert_array_equal(tensors[1].numpy(), expected)


@pytest.mark.parametrize(("count", "additions"), [(1, 3), (2, 4), (4, 7)])
def test_masks_become_words(count: int, additions: int) -> None:
    """Per mask: 8 comparisons, 6 instructions that narrow, 2 that select bits."""
    profile = runnable(target_of(ARM[0]))
    library = compiled(compares(profile, count), profile)
    source = library.mod.inspect_source("s")
    body = source[source.index("main_compute_:") :]
    body = body[: body.index("\tret")]
    assert body.count("\tfcmgt\t") == 8 * count
    assert body.count("\tuzp1\t") == 6 * count
    assert body.count("\taddp\t") == additions
    assert "umov" not in body
    check(library)


@pytest.mark.parametrize("level", ALL)
def test_a_word_on_every_level(level: str) -> None:
    profile = runnable(target_of(level))
    check(compiled(compares(profile, 0), profile))


def test_uses_no_instruction_that_others_lack() -> None:
    for level in ALL[:-1]:
        profile = profile_of(target_of(level))
        assert "llvm.aarch64" not in compares(profile, 0).script()


def test_vectors_are_read_four_at_a_time() -> None:
    """Each load moves its pointer on, and no other instruction reckons addresses."""
    rows = 96

    def body(x: v.Buffer, y: v.Buffer) -> None:
        walk = Walk()
        with walking():
            walk.begin(x, 0, 0)
            with T.serial(0, rows // 3) as i:
                for k in range(3):
                    read = walk.four()
                    a, b, c, d = (v.load(read, 4 * n, lanes=4) for n in range(4))
                    v.store(y, (a - b) ^ (c - d), i * 3 + k, 0, lanes=4)

    profile = runnable(target_of(ARM[0]))
    func = v.prim_func([("x", (rows, 16), "uint32"), ("y", (rows, 4), "uint32")], body)
    library = compiled(func, profile)
    source = library.mod.inspect_source("s")
    body_of = source[source.index("main_compute_:") :]
    body_of = body_of[: body_of.index("\tret")]
    assert body_of.count("], #64") == body_of.count("\tld1\t") == 3
    x = np.random.default_rng(0).integers(0, 2**32, (rows, 4, 4), dtype=np.uint32)
    tensors = [tvm.runtime.tensor(a) for a in (x.reshape(rows, 16), np.zeros((rows, 4), "uint32"))]
    library["main"](*tensors)
    expected = (x[:, 0] - x[:, 1]) ^ (x[:, 2] - x[:, 3])
    np.testing.assert_array_equal(tensors[1].numpy(), expected)
