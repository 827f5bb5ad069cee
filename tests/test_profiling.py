"""Sums of a profile, on numbers made up for it, and where the work of a step comes from."""

import numpy as np
import pytest

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.planes import Compare, Kind
from gsb_tvm.dialect.specs import Binarize, Dense, Patches, encode
from gsb_tvm.dialect.work import Bound
from gsb_tvm.profiling import Samples, breakdown
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.step_work import Work, work_of

ROWS = Rows(1, 10, 1, 32)
DENSE = Dense(ROWS, Kind.SIGN, Kind.SIGN, 50, 64)
KERNELS = {
    "binarize": encode(Binarize(ROWS, Compare(Kind.SIGN), norm=False, shift=False)),
    "dense12": encode(DENSE),
    "patches": encode(Patches(1, 3, (8, 8), (4, 4), 16, lattice=False, bias=False)),
    "cast": "",
    "fused_matmul": "",
    "layer_norm": "",
}
STEPS = [
    ("patches", "embed"),
    ("binarize", "fc"),
    ("dense12", "fc"),
    ("layer_norm", "norm"),
    ("cast", "head"),
    ("fused_matmul", "head"),
]


def described(steps=STEPS):
    return meta.Program(
        inputs=(),
        outputs=(),
        layers=(
            meta.Layer("fc", "linear", (10, 32, 50), "packed", "", 16000, 0),
            meta.Layer("head", "linear", (1, 16, 20), "float", "", 320, 0),
        ),
        kernels=KERNELS,
        steps=tuple(meta.Step(*step) for step in steps),
    )


def test_work_comes_from_the_spec_or_from_the_float_layer_of_that_name():
    embed, binarize, dense, norm, cast, head = work_of(described(), "m.so")
    assert (embed.kind, embed.macs, embed.bound) == ("patches", 4 * 48 * 16, Bound.MULTIPLYING)
    assert (binarize.kind, binarize.macs, binarize.floats) == ("binarize", None, 320)
    assert (dense.kind, dense.macs, dense.bound) == ("dense", 10 * 32 * 50, Bound.COUNTING)
    assert (norm, cast) == (Work("float", "layer_norm"), Work("float", "cast"))
    assert head == Work("linear", "1 x 16 x 20", 320, bound=Bound.MULTIPLYING)


def test_limits_are_one_for_products_and_one_for_each_size_that_is_read():
    embed, binarize, dense, norm, *_ = work_of(described(), "m.so")
    assert [work.limit for work in (embed, binarize, dense, norm)] == [
        (Bound.MULTIPLYING, 0),
        (Bound.READING, 320),
        (Bound.COUNTING, 0),
        None,
    ]
    assert binarize.amount == 4 * 320
    assert dense.amount == 16000


def test_sums_by_layer_and_kind():
    program = described()
    us = np.array([4.0, 1.0, 2.0, 0.5, 0.25, 0.25])
    samples = Samples(np.array([9e-6, 10e-6, 11e-6]), np.stack([us, us, us * 9]) * 1e-6)
    ideal = [2e-6, None, 1e-6, None, None, 0.125e-6]
    found = breakdown(program, work_of(program, ""), samples, ideal)
    assert (found.whole_us, found.steps_us, found.rest_us) == pytest.approx((10, 8, 2))
    assert [line.us for line in found.steps] == pytest.approx(us)
    assert [line.layer for line in found.layers] == ["embed", "fc", "norm", "head"]
    assert [line.shape for line in found.shapes][:2] == ["4 x 48 x 16", "10 x 32 x 50 to floats"]
    assert [(line.kind, line.shape) for line in found.shapes][4:] == [
        ("float", "cast"),
        ("linear", "1 x 16 x 20"),
    ]
    assert [line.kind for line in found.kinds] == [
        "patches",
        "dense",
        "binarize",
        "float",
        "linear",
    ]
    fc = found.layers[1]
    assert (fc.steps, fc.kind, fc.kernel, fc.macs) == (2, "", "", 16000)
    assert (fc.us, fc.share, fc.gmacs) == pytest.approx((3, 0.3, 16000 / 3e3))
    assert fc.limit == pytest.approx(0.5)  # of the dense layer alone
    assert fc.bytes == sum(work.bytes for work in work_of(program, "")[1:3])
    head = found.layers[3]
    assert (head.steps, head.macs, head.bytes, head.limit) == (2, 320, None, pytest.approx(0.5))
    assert found.kinds[0].limit == pytest.approx(0.5)
    assert found.kinds[3].limit is None
