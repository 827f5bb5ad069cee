"""Seeded parameters and the initialisation of scales from data."""

import torch
from torch import Tensor, nn

from gsb_tvm.models.gsb import Attention, Gsb
from gsb_tvm.models.layers import QuantLinear, QuantPatchConv

_BASE_BIT_SHARE = (0.07, 0.15)


def _images(model: Gsb, generator: torch.Generator, count: int = 1) -> Tensor:
    config = model.config
    shape = (count, config.channels, config.image_size, config.image_size)
    return torch.randn(shape, generator=generator)


def calibrate(model: Gsb, images: Tensor) -> None:
    """Set every scale from one forward on ``images``, as official training does at its start."""
    layers = [m for m in model.modules() if isinstance(m, QuantLinear | QuantPatchConv | Attention)]
    for layer in layers:
        layer.calibrating = True
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        model.train(was_training)
        for layer in layers:
            layer.calibrating = False


def fresh_(model: Gsb, seed: int) -> Gsb:
    """Fill with untrained parameters: weights of deviation 0.02, zero biases and moves.

    Sums of few signs without a bias are often exactly zero, so such a network is full of sign(0).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("clip_val", "alpha")) or ".clip_" in name:
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            elif "norm" in name:
                parameter.fill_(1.0)
            else:
                nn.init.trunc_normal_(parameter, std=0.02, generator=generator)
    calibrate(model, _images(model, generator))
    return model


def realistic_(model: Gsb, seed: int) -> Gsb:
    """Fill with parameters that have the statistics of a trained network.

    Biases, moves and norms are not trivial, the scales are near those of a trained network, and
    the attention's base scale is set so that 7 to 15 % of its base bits are ones.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _fill_realistic(name, parameter, model, generator)
    calibrate(model, _images(model, generator))
    low, high = _BASE_BIT_SHARE
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("clip_val") or ".clip_" in name:
                parameter.mul_(0.8 + 0.4 * torch.rand((), generator=generator))
        attentions = [m for m in model.modules() if isinstance(m, Attention) and m.binary]
        for attention in attentions:
            share = low + (high - low) * torch.rand((), generator=generator).item()
            _set_base_share(model, attention, share, _images(model, generator))
    return model


def _fill_realistic(name: str, p: nn.Parameter, model: Gsb, generator: torch.Generator) -> None:
    """Draw one parameter; deviations are relative to what the parameter is added to."""
    noise = torch.randn(p.shape, generator=generator)
    if name.endswith("alpha") or name.endswith("clip_val") or ".clip_" in name:
        p.fill_(1.0)
    elif "move_att" in name:
        p.copy_(noise * (0.3 / model.config.tokens))
    elif "move" in name:
        p.copy_(noise * 0.15)
    elif "norm" in name:
        p.copy_(1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise)
    elif name.endswith("bias"):
        p.copy_(noise * 0.1)
    elif name.endswith(("_token", "pos_embed")):
        p.copy_(noise * 0.3)
    else:
        fan_in = p[0].numel()
        p.copy_((noise + 0.05) * fan_in**-0.5)


def _set_base_share(model: Gsb, attention: Attention, share: float, images: Tensor) -> None:
    """Set the attention's base scale so that ``share`` of the base bits are ones on ``images``."""
    seen: list[Tensor] = []
    hook = attention.move_att.register_forward_hook(lambda _m, _i, out: seen.append(out))
    model.eval()(images)
    hook.remove()
    count = seen[0].numel()
    threshold = seen[0].flatten().kthvalue(int(count * (1 - share))).values
    attention.clip_attn.copy_((2 * threshold).clamp(min=1e-4))
