"""Baked weights and the float64 oracle."""

import numpy as np
import pytest
import torch

from gsb_tvm.models.bake import bake_weights, reference_logits
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb


@pytest.fixture(scope="module")
def mini() -> Gsb:
    return realistic_(Gsb(PRESETS["mini"]), 0)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 32, 32)).astype(np.float32)


def test_statistics_are_summed_in_float64_and_rounded_once(mini: Gsb) -> None:
    weight = mini.state_dict()["blocks.1.mlp.fc1.weight"].numpy()
    exact = weight.astype(np.float64)
    mean, scale = np.float32(exact.mean()), np.float32(np.abs(exact).mean())
    found = bake_weights(mini).state_dict()["blocks.1.mlp.fc1.weight"].numpy()
    np.testing.assert_array_equal(found, np.sign(weight - mean) * scale)


def test_8_bit_weights_are_exact_multiples_of_their_scale(mini: Gsb) -> None:
    state, baked = mini.state_dict(), bake_weights(mini).state_dict()
    for key, scale in (
        ("patch_embed.proj.weight", state["patch_embed.proj.alpha"].view(-1, 1, 1, 1)),
        ("head.weight", state["head.weight_clip_val"]),
    ):
        steps = (baked[key] / scale).round()
        assert steps.abs().max() <= 128
        torch.testing.assert_close(baked[key], steps * scale, rtol=0, atol=0)
        assert not torch.equal(baked[key], state[key])


def test_the_original_is_left_alone(mini: Gsb) -> None:
    before = {key: value.clone() for key, value in mini.state_dict().items()}
    bake_weights(mini)
    assert all(torch.equal(before[key], value) for key, value in mini.state_dict().items())


def test_float32_agrees_with_the_oracle_on_most_images(mini: Gsb) -> None:
    images = pictures(16)
    exact = reference_logits(mini, images)
    single = reference_logits(mini, images, torch.float32)
    assert exact.dtype == np.float64
    assert (np.abs(single - exact).max(1) < 1e-5).sum() >= 15


def test_logits_depend_on_the_batch(mini: Gsb) -> None:
    images = pictures(4)
    alone, together = reference_logits(mini, images), reference_logits(mini, images, batch=4)
    assert np.abs(alone - together).max() > 1e-3
    with pytest.raises(ValueError, match=r"^4 images do not fill batches of 3$"):
        reference_logits(mini, images, batch=3)
