"""Checks of whole models, by modules that are right, near, or wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from gsb_tvm.runtime.metadata import Tensor
from tests.gpu import drawing, model_checks
from tests.gpu.folder import Reference
from tests.gpu.model_checks import against, classified

SPEC = Tensor("image", (1, 3), "float32")
DRAWN = Reference(batch=2, count=4, seed=3)
REFERENCE = replace(DRAWN, digest=drawing.digest(drawing.images(SPEC, DRAWN)))


class Module:
    """Doubles an image; wrong by ``error`` on images of ``numbers``, counted over calls."""

    metadata = SimpleNamespace(
        program=SimpleNamespace(inputs=(SPEC,)),
        programs=(SimpleNamespace(batch=1), SimpleNamespace(batch=4)),
    )

    def __init__(self, error=0.0, numbers=()):
        self._error, self._numbers, self._seen = error, numbers, 0

    def __call__(self, x):
        out = 2 * x
        for row in range(len(x)):
            if self._seen + row in self._numbers:
                out[row] += self._error
        self._seen += len(x)
        return out


def stored():
    runs = drawing.nudged(drawing.images(SPEC, REFERENCE))
    return np.stack([2 * np.concatenate(run) for run in runs])


def test_images_are_drawn_alike_everywhere():
    first, second = (drawing.images(SPEC, REFERENCE) for _ in range(2))
    assert [x.shape for x in first] == [(2, 3)] * 4
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    runs = list(drawing.nudged(first))
    assert all(np.array_equal(a, b) for a, b in zip(runs[0], first, strict=True))
    assert not np.array_equal(runs[1][0], first[0])
    np.testing.assert_allclose(runs[2][0], first[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("error", "numbers", "verdict", "wrong"),
    [(0.0, (), "ok", 0), (0.1, (5,), "ok", 1), (0.1, (1, 2), "failed", 2)],
)
def test_one_image_in_eight_may_differ(error, numbers, verdict, wrong):
    row = against("unit", Module(error, numbers), REFERENCE, stored())
    assert row.verdict == verdict
    assert row.figures == {"exact": 8 - wrong, "tie": 0, "wrong": wrong}


def test_other_images_are_not_compared():
    row = against("unit", Module(), replace(REFERENCE, seed=4), stored())
    assert row.verdict == "failed"
    assert "draws other images" in row.text


def test_an_image_on_an_edge_is_no_error():
    wanted = np.ones((2, 3, 4), np.float32)
    wanted[1, 2] = 5  # a bit flips where the input is nudged
    got = np.ones((3, 4), np.float32)
    got[1:] = 3
    assert [sample.kind for sample in classified(got, wanted)] == ["exact", "wrong", "tie"]
    got[2] = 5
    assert classified(got, wanted)[2].kind == "exact"


@pytest.mark.parametrize("way", ["called again", "several threads", "cut batches"])
def test_ways_that_need_no_framework(way):
    drawn = drawing.images(SPEC, Reference(batch=1, count=4, seed=3))
    assert model_checks._WAYS[way](Module(), drawn) == ""
    if way != "cut batches":
        found = model_checks._WAYS[way](Module(0.1, (6,)), drawn)
        assert "3 of 3 numbers differ" in found
