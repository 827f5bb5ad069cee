"""The layers of GSB, named so that their parameters carry the keys of official checkpoints."""

from collections.abc import Callable
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsb_tvm.models import quantizers as q


class Weight(Enum):
    """How a layer's weight is quantised."""

    BINARY = "binary"
    INT8 = "int8"


class Activation(Enum):
    """How a layer's input is quantised."""

    SIGNED = "signed"
    UNSIGNED = "unsigned"
    INT8 = "int8"
    FLOAT = "float"


_PLAIN: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
    Activation.SIGNED: q.signed,
    Activation.UNSIGNED: q.unsigned,
    Activation.INT8: q.signed_int8,
}
_TRAINED: dict[Activation, Callable[..., Any]] = {
    Activation.SIGNED: q.Signed.apply,
    Activation.UNSIGNED: q.Unsigned.apply,
    Activation.INT8: q.SignedInt8.apply,
}


def quantize(x: Tensor, scale: Tensor, kind: Activation, *, training: bool) -> Tensor:
    """Quantise ``x`` with one scale, through the autograd function where gradients are wanted."""
    return (_TRAINED if training else _PLAIN)[kind](x, scale)


def initial_scale(x: Tensor, kind: Activation) -> Tensor:
    """Return ``2 mean|x|`` (signed, 8 bits: over sqrt(127)) or ``4 mean|x|`` (unsigned)."""
    mean = x.detach().abs().mean()
    if kind is Activation.INT8:
        return 2 * mean / 127**0.5
    return (4 if kind is Activation.UNSIGNED else 2) * mean


def new_scale() -> nn.Parameter:
    """Return a scale that still has to be initialised; official files mark this with exactly 1."""
    return nn.Parameter(torch.tensor(1.0))


class Move(nn.Module):
    """A learned shift, added before a quantiser."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + bias``."""
        return x + self.bias.expand_as(x)


class LayerNorm(nn.Module):
    """Layer norm over the last axis in elementary steps, epsilon 1e-12 inside the root."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised ``x``."""
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).pow(2).mean(-1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-12)
        return self.weight * x + self.bias


class QuantLinear(nn.Linear):
    """A linear layer with a shift, a quantised input and a quantised weight.

    ``calibrating`` makes the next forward set the input's scale from what it sees. ``baked`` says
    that ``weight`` already holds the quantised values.
    """

    def __init__(self, inputs: int, outputs: int, weight: Weight, activation: Activation) -> None:
        super().__init__(inputs, outputs)
        self.weight_kind = weight
        self.activation_kind = activation
        self.calibrating = False
        self.baked = False
        self.move = Move(inputs)
        self.input_clip_val = new_scale()
        if weight is Weight.INT8:
            self.weight_clip_val = new_scale()

    def quantized_weight(self) -> Tensor:
        """Return the weight the product uses, ``(outputs, inputs)``."""
        if self.baked:
            return self.weight
        if self.weight_kind is Weight.INT8:
            return quantize(
                self.weight, self.weight_clip_val, Activation.INT8, training=self.training
            )
        binary: Tensor
        binary = (
            q.BinaryWeight.apply(self.weight) if self.training else q.binary_weight(self.weight)
        )
        return binary

    def calibrate(self, x: Tensor) -> None:
        """Set the scales from the shifted input and the weight."""
        self.input_clip_val.data.copy_(initial_scale(x, self.activation_kind))
        if self.weight_kind is Weight.INT8:
            self.weight_clip_val.data.copy_(initial_scale(self.weight, Activation.INT8))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``quantised(x + move) @ quantised(W).T + bias``."""
        x = self.move(x)
        if self.calibrating:
            self.calibrate(x)
        weight = self.quantized_weight()
        if self.activation_kind is not Activation.FLOAT:
            x = quantize(x, self.input_clip_val, self.activation_kind, training=self.training)
        out = F.linear(x, weight)
        out = out + self.bias.view(1, -1).expand_as(out)
        return out


class QuantPatchConv(nn.Conv2d):
    """The patch embedding: 8-bit weights, one scale an output channel, float input."""

    alpha: Tensor
    init_state: Tensor

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__(channels, width, kernel_size=patch, stride=patch)
        self.alpha = nn.Parameter(torch.ones(width))
        self.register_buffer("init_state", torch.zeros(1))
        self.calibrating = False
        self.baked = False

    def quantized_weight(self) -> Tensor:
        """Return the weight the convolution uses, ``(width, channels, patch, patch)``."""
        if self.baked:
            return self.weight
        alpha: Tensor = self.alpha
        if self.training:
            alpha = q.ScaledGradient.apply(alpha, (self.weight.numel() * 127) ** -0.5)
        alpha = alpha.unsqueeze(1).unsqueeze(2).unsqueeze(3)
        low, high = q.levels(8, signed=True)
        return q.round_straight_through((self.weight / alpha).clamp(low, high)) * alpha

    def forward(self, x: Tensor) -> Tensor:
        """Return the patches, ``(batch, width, rows, columns)``."""
        if self.calibrating:
            mean = self.weight.detach().abs().mean()
            self.alpha.data.copy_((2 * mean / 127**0.5).expand_as(self.alpha))
            self.init_state.fill_(1)
        return F.conv2d(x, self.quantized_weight(), self.bias, self.stride)
