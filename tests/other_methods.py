"""Small torch modules that binarise as published methods do, each with its own spelling.

``Binary.exact`` switches a module to what it means: no straight-through terms, binary weights
computed in float64 and rounded once to float32. Evaluated in float64 that is the reference.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

TOKENS = 13


class Binary(nn.Module):
    """Base of everything with a quantiser."""

    exact = False

    def through(self, value: Tensor, smooth: Tensor) -> Tensor:
        """``value`` with the gradient of ``smooth``."""
        return value if self.exact else (value.detach() - smooth.detach()) + smooth


def reference(module: nn.Module) -> nn.Module:
    """The module's meaning in float64."""
    meant = deepcopy(module).double()
    for part in meant.modules():
        if isinstance(part, Binary):
            part.exact = True
    return meant


def polynomial(x: Tensor) -> Tensor:
    """Piecewise quadratic stand-in for sign (Bi-Real Net, used by ReActNet and Bi-ViT)."""
    out1 = (-1) * (x < -1).type(x.dtype) + (x * x + 2 * x) * (1 - (x < -1).type(x.dtype))
    out2 = out1 * (x < 0).type(x.dtype) + (-x * x + 2 * x) * (1 - (x < 0).type(x.dtype))
    return out2 * (x < 1).type(x.dtype) + 1 * (1 - (x < 1).type(x.dtype))


# Signs of activations -----------------------------------------------------------------------------


class ClipSign(Binary):
    """BiBERT: sign with the gradient of a clip."""

    def forward(self, x: Tensor) -> Tensor:
        return self.through(torch.sign(x), torch.clamp(x, -1, 1))


class PolynomialSign(Binary):
    """ReActNet, BinaryViT, Bi-ViT: sign with the gradient of a polynomial."""

    def forward(self, x: Tensor) -> Tensor:
        return self.through(torch.sign(x), polynomial(x))


class SelfSign(Binary):
    """Sign with the gradient of the identity."""

    def forward(self, x: Tensor) -> Tensor:
        return self.through(torch.sign(x), x)


class WhereSign(Binary):
    """Zero counts as +1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class CompareSign(Binary):
    """Zero counts as -1."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype) * 2 - 1


class ScaledSign(Binary):
    """BiT: a * sign(x), one learned scale."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return self.through(torch.sign(x), torch.clamp(x, -1, 1)) * self.scale


class HeadSign(ScaledSign):
    """One scale for each head of (batch, heads, tokens, width)."""

    def __init__(self, heads: int) -> None:
        super().__init__(1.0)
        self.scale = nn.Parameter(torch.linspace(0.3, 0.9, heads).reshape(1, heads, 1, 1))


class Mask(Binary):
    """BiT, BinaryViT: {0, a} by rounding."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        y = x / self.scale
        return self.through(torch.round(y), y).clamp(0, 1) * self.scale


class Move(nn.Module):
    """A learned shift for each feature, then a sign."""

    def __init__(self, features: int, sign: nn.Module) -> None:
        super().__init__()
        self.shift = nn.Parameter(0.1 * torch.randn(features))
        self.sign = sign

    def forward(self, x: Tensor) -> Tensor:
        return self.sign(x + self.shift.expand_as(x))


# Linear layers ------------------------------------------------------------------------------------


class Linear(Binary):
    """Row scale mean|W| times sign(W), the row mean removed or not."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        quantizer: nn.Module,
        *,
        centred: bool = True,
        by_tensor: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(outputs, inputs) + 0.02)
        self.bias = nn.Parameter(0.1 * torch.randn(outputs)) if bias else None
        self.quantizer = quantizer
        self.centred, self.by_tensor = centred, by_tensor

    def binary_weight(self) -> Tensor:
        w = self.weight
        if self.by_tensor:
            scale = w.norm(p=1) / w.nelement()
            return torch.sign(w - w.mean()) * scale
        real = w - w.mean(dim=-1, keepdim=True) if self.centred else w
        scale = w.abs().mean(dim=1, keepdim=True).detach()
        return self.through(scale * torch.sign(real), torch.clamp(real, -1.0, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.binary_weight()
        if self.exact:
            weight = weight.float().double()
        return nn.functional.linear(self.quantizer(x), weight, self.bias)


class LearnedScaleLinear(Linear):
    """BiViT: the row scale is a parameter."""

    def __init__(self, inputs: int, outputs: int, quantizer: nn.Module) -> None:
        super().__init__(inputs, outputs, quantizer)
        self.scale = nn.Parameter(0.1 + 0.1 * torch.rand(outputs, 1))

    def binary_weight(self) -> Tensor:
        real = self.weight - self.weight.mean(dim=-1, keepdim=True)
        return self.scale * self.through(torch.sign(real), torch.clamp(real, -1.0, 1.0))


class RPReLU(nn.Module):
    """PReLU between two shifts, for each channel of (batch, tokens, channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(0.1 * torch.randn(channels))
        self.prelu = nn.PReLU(channels)
        self.after = nn.Parameter(0.1 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu((x - self.before).transpose(-1, -2)).transpose(-1, -2) + self.after


class TokenBatchNorm(nn.BatchNorm1d):
    """Batch norm of (batch, tokens, channels), with statistics as after training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.running_mean.normal_(0, 0.3)
        self.running_var.uniform_(0.5, 2.0)
        nn.init.uniform_(self.weight, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(-1, -2)).transpose(-1, -2)


class NormShortcutLinear(nn.Module):
    """BinaryViT, BHViT: binary linear, batch norm, shortcut, RPReLU; then the same again.

    The shortcut of a widening layer is its input, repeated; of a narrowing one, pooled.
    """

    def __init__(self, features: int, sign: Callable[[], nn.Module], widening: int = 1) -> None:
        super().__init__()
        wide = features * widening
        self.up = Linear(features, wide, Move(features, sign()), bias=False)
        self.norm_up, self.act_up = TokenBatchNorm(wide), RPReLU(wide)
        self.down = Linear(wide, features, Move(wide, sign()), bias=False)
        self.norm_down, self.act_down = TokenBatchNorm(features), RPReLU(features)
        self.widening, self.pool = widening, nn.AvgPool1d(widening)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.act_up(self.norm_up(self.up(x)) + torch.cat([x] * self.widening, dim=-1))
        return self.act_down(self.norm_down(self.down(wide)) + self.pool(wide))


# Attention ----------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Binary linears and binary products; methods differ in the quantisers they bring.

    ``probabilities`` turns scores (batch, heads, tokens, tokens) into binary attention.
    """

    def __init__(
        self,
        features: int,
        heads: int,
        *,
        linear: Callable[[], nn.Module],
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        probabilities: nn.Module,
        scaled: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.width = heads, features // heads
        self.q, self.k, self.v, self.out = linear(), linear(), linear(), linear()
        self.query, self.key, self.value = query, key, value
        self.probabilities = probabilities
        self.scaled = scaled

    def split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.width).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(self.split(self.q(x)))
        k = self.key(self.split(self.k(x)))
        v = self.value(self.split(self.v(x)))
        scores = q @ k.transpose(-1, -2)
        if self.scaled:
            scores = scores / self.width**0.5
        o = self.probabilities(scores) @ v
        return self.out(o.permute(0, 2, 1, 3).reshape(x.shape))


class SoftmaxMask(nn.Module):
    """BiT, BinaryViT: softmax, then {0, a}; an additive mask of padding tokens before."""

    def __init__(self, scale: float, padded: int = 0) -> None:
        super().__init__()
        bias = torch.zeros(1, 1, 1, TOKENS)
        bias[..., TOKENS - padded :] = -10000.0
        self.register_buffer("bias", bias if padded else None)
        self.mask = Mask(scale)

    def forward(self, scores: Tensor) -> Tensor:
        masked = scores if self.bias is None else scores + self.bias
        return self.mask(torch.softmax(masked, dim=-1))


class PositiveScores(Binary):
    """BiBERT: [s > 0] written as an assignment to a sign; no softmax."""

    def forward(self, scores: Tensor) -> Tensor:
        p = self.through(torch.sign(scores), torch.clamp(scores, -1, 1))
        p[p == -1] = 0
        return p


class RowMaximumMask(Binary):
    """BiViT: [p >= max(p) / 4] of each row."""

    def forward(self, scores: Tensor) -> Tensor:
        p = torch.softmax(scores, dim=-1)
        bound = (p.max(dim=-1)[0] * 0.25).unsqueeze(-1)
        return self.through(torch.where(p < bound, 0, 1).to(p.dtype), p)


class NestedMasks(Binary):
    """BHViT: a_h * clip(round(3 p / a_h + z_h), 0, 3)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(0.2, 0.6, heads).reshape(1, heads, 1, 1))
        self.z = nn.Parameter(torch.linspace(-0.1, 0.1, heads).reshape(1, heads, 1, 1))

    def forward(self, scores: Tensor) -> Tensor:
        t = torch.softmax(scores, dim=-1) * 3 / self.a + self.z
        return self.through(torch.round(t), t).clamp(0, 3) * self.a


class RowThresholdMasks(Binary):
    """BHViT ``--gsb``: a * (base + (a2 - 1) T1 + (a3 - a2) T2), thresholds of each row."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(scale))
        self.a2, self.a3 = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(3.0))

    def forward(self, scores: Tensor) -> Tensor:
        q = torch.softmax(scores, dim=-1) / self.a
        top = q.max(dim=3, keepdim=True)[0]
        t1, t2 = ((q > top * ratio).to(q.dtype) for ratio in (0.7, 0.9))
        base = self.through(torch.round(q), q).clamp(0, 1)
        return ((base - t1) * 1 + (t1 - t2) * self.a2 + t2 * self.a3) * self.a


class AffineSign(Binary):
    """Bi-ViT: a_h * (sign(x / a_h + z_h) - z_h), z rounded."""

    def __init__(self, scales: Tensor, shifts: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(scales.reshape(1, -1, 1, 1))
        self.z = nn.Parameter(shifts.reshape(1, -1, 1, 1))

    @classmethod
    def of_heads(cls, heads: int) -> "AffineSign":
        """For queries, keys and values."""
        return cls(torch.linspace(0.3, 0.9, heads), torch.linspace(-1.2, 1.2, heads))

    @classmethod
    def of_attention(cls, heads: int) -> "AffineSign":
        """For what comes out of a softmax: 2 a or 0."""
        return cls(torch.linspace(0.06, 0.09, heads), torch.full((heads,), -0.8))

    def forward(self, x: Tensor) -> Tensor:
        z = self.through(torch.round(self.z), self.z)
        y = torch.clamp(x / self.a + z, -1, 1)
        return (self.through(torch.sign(y), y) - z) * self.a


class AffineAttention(nn.Module):
    """Bi-ViT: softmax, then an affine sign."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.sign = AffineSign.of_attention(heads)

    def forward(self, scores: Tensor) -> Tensor:
        return self.sign(torch.softmax(scores, dim=-1))


# Convolution --------------------------------------------------------------------------------------


class ReActBlock(Binary):
    """ReActNet: shift, sign, binary 3x3 convolution, batch norm, shortcut, RPReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Parameter(0.1 * torch.randn(1, channels, 1, 1))
        self.weight = nn.Parameter(0.3 * torch.randn(channels, channels, 3, 3))
        self.sign, self.norm = PolynomialSign(), nn.BatchNorm2d(channels)
        self.inner = nn.Parameter(0.1 * torch.randn(1, channels, 1, 1))
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean(dim=(1, 2, 3), keepdim=True).detach()
        signs = scale * torch.sign(self.weight)
        weight = self.through(signs, torch.clamp(self.weight, -1.0, 1.0))
        if self.exact:
            weight = weight.float().double()
        y = nn.functional.conv2d(self.sign(x + self.before.expand_as(x)), weight, padding=1)
        return self.prelu(self.norm(y) + x + self.inner.expand_as(x))
