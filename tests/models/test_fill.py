"""Seeded parameters have the statistics they promise."""

from dataclasses import replace

import pytest
import torch

from gsb_tvm.models import quantizers as q
from gsb_tvm.models.bake import bake_weights
from gsb_tvm.models.fill import calibrate, fresh_, realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb

SHALLOW = replace(PRESETS["deit-small"], depth=2)


@pytest.fixture(scope="module")
def densities() -> list[dict[str, float]]:
    """Return the share of ones in each mask, a dictionary a block, on an unseen image."""
    model = realistic_(Gsb(SHALLOW), 3).eval()
    found: list[dict[str, float]] = [{} for _ in model.blocks]
    for block, shares in zip(model.blocks, found, strict=True):
        attn = block.attn

        def see_attention(_m, _i, p, shares=shares, attn=attn) -> None:
            t1, t2 = q.attention_masks(p)
            base = (p / attn.clip_attn).round().clamp(0, 1)
            shares.update(p1=t1.mean().item(), p2=t2.mean().item(), base=base.mean().item())

        def see_value(_m, _i, v, shares=shares) -> None:
            t1, t2 = q.value_masks(v)
            shares.update(v1=t1.mean().item(), v2=t2.mean().item())

        attn.move_att.register_forward_hook(see_attention)
        attn.move_v.register_forward_hook(see_value)
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224, generator=torch.manual_seed(5)))
    return found


def test_realistic_masks_are_as_dense_as_in_trained_networks(densities) -> None:
    for shares in densities:
        assert 0.0006 <= shares["v1"] <= 0.01
        assert 0 < shares["v2"] <= 0.0005
        assert 0 < shares["p1"] <= 0.005
        assert 0 < shares["p2"] <= shares["p1"]
        assert 0.06 <= shares["base"] <= 0.16


def test_a_seed_gives_the_same_network_again() -> None:
    one, same, other = (realistic_(Gsb(PRESETS["mini"]), s).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["pos_embed"], other["pos_embed"])


def test_fresh_parameters_are_full_of_exact_zeros() -> None:
    model = bake_weights(fresh_(Gsb(SHALLOW), 0)).double()
    seen: list[torch.Tensor] = []
    model.blocks[0].attn.move_v.register_forward_hook(lambda _m, _i, v: seen.append(v))
    with torch.no_grad():
        model(torch.randn(1, 3, 224, 224, generator=torch.manual_seed(5)).double())
    # A sum of 384 signs is 0 with probability sqrt(2 / (384 pi)) = 4.1 %.
    assert 0.02 < (seen[0] == 0).double().mean() < 0.08
    assert not any(p.any() for name, p in model.named_parameters() if name.endswith("bias"))


def test_calibration_sets_every_scale_and_keeps_the_mode() -> None:
    model = Gsb(PRESETS["mini"]).train()
    calibrate(model, torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0)))
    assert model.training
    scales = {k: v for k, v in model.named_parameters() if "clip_" in k or k.endswith("alpha")}
    assert len(scales) == 2 * (4 + 8) + 4 + 1
    assert all((value > 0).all() and (value != 1).all() for value in scales.values())


def test_a_linear_s_scale_is_twice_the_mean_of_its_input() -> None:
    model = Gsb(PRESETS["mini"])
    seen: list[torch.Tensor] = []
    model.blocks[0].attn.qkv.move.register_forward_hook(lambda _m, _i, x: seen.append(x))
    calibrate(model, torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0)))
    expected = 2 * seen[0].abs().mean()
    torch.testing.assert_close(model.blocks[0].attn.qkv.input_clip_val.detach(), expected)
