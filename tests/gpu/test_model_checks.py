"""Checks of whole models, by modules that are right, near, or wrong."""

from types import SimpleNamespace

import numpy as np
import pytest
from msgspec.structs import replace

from gsb_tvm.runtime.metadata import Tensor
from tests.gpu import drawing, model_checks
from tests.gpu.folder import Reference
from tests.gpu.model_checks import against

SPEC = Tensor("image", (1, 3), "float32")
SEEDS = (3, 5, 8, 9)


def reference(batch, drawn):
    found = drawing.digest(SPEC, drawn, SEEDS)
    return Reference(batch=batch, drawn=drawn, seeds=SEEDS, digest=found)


def stored(drawn):
    return np.stack([2 * drawing.images(SPEC, drawn, seed) for seed in SEEDS])


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


def test_images_are_drawn_alike_everywhere():
    x = drawing.images(SPEC, 8, 1)
    assert x.shape == (8, 3)
    assert np.array_equal(x, drawing.images(SPEC, 8, 1))
    assert drawing.images(SPEC, 1, 1).shape == (8, 3)
    first, *others = drawing.nudged(x)
    assert np.array_equal(first, x)
    for other in others:
        assert not np.array_equal(other, x)
        np.testing.assert_allclose(other, x, rtol=2e-6)


@pytest.mark.parametrize(("batch", "drawn"), [(1, 1), (2, 2), (8, 8), (20, 8)])
def test_a_right_model(batch, drawn):
    row = against("unit", Module(), reference(batch, drawn), stored(drawn))
    images = 4 * (8 if batch == 1 else batch)
    assert row.verdict == "ok"
    assert row.figures == {
        "calls": 4,
        "right": 4,
        "images": images,
        "exact": images,
        "largest_error": 0.0,
    }


@pytest.mark.parametrize(
    ("numbers", "verdict", "right"),
    [
        ((5,), "ok", 4),  # an image of a call
        (range(20), "ok", 3),  # a whole call
        (range(40), "failed", 2),
        ((1, 21, 41, 61), "ok", 4),
        ((1, 2, 3, 21, 22, 23), "failed", 2),
    ],
)
def test_a_call_in_four_and_an_image_in_eight_may_differ(numbers, verdict, right):
    row = against("unit", Module(0.1, numbers), reference(20, 8), stored(8))
    assert (row.verdict, row.figures["right"]) == (verdict, right)


def test_other_images_are_not_compared():
    row = against("unit", Module(), replace(reference(8, 8), seeds=(1, 2, 3, 4)), stored(8))
    assert row.verdict == "failed"
    assert "draws other images" in row.text


@pytest.mark.parametrize("way", ["called again", "several threads", "cut batches"])
def test_ways_that_need_no_framework(way):
    drawn = list(drawing.images(SPEC, 1, 3)[:4, None])
    assert model_checks._WAYS[way](Module(), drawn) == ""
    if way != "cut batches":
        found = model_checks._WAYS[way](Module(0.1, (6,)), drawn)
        assert "3 of 3 numbers differ" in found
