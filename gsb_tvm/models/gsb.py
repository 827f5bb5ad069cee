"""The GSB vision transformer (arXiv 2305.07931) and its float counterpart.

The arithmetic follows the official network operation by operation, so that an exported graph has
the same node sequences, and the parameters have the keys of official checkpoints.

Letters: ``B`` batch, ``N`` tokens, ``D`` width, ``H`` heads, ``d = D / H``.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsb_tvm.models import quantizers as q
from gsb_tvm.models.layers import (
    Activation,
    LayerNorm,
    Move,
    QuantLinear,
    QuantPatchConv,
    Weight,
    initial_scale,
    new_scale,
    quantize,
)

_ROOT_2 = q.fp32(2.0**0.5)


@dataclass(frozen=True)
class GsbConfig:
    """Shape of a network and what of it is quantised.

    Attributes
    ----------
    groups
        3 for GSB's attention and value groups; 1 keeps only the first group of both (ablation).
    binary_weights
        ``"all"`` linears, only ``"mlp"`` (training stage 1), or ``"none"``.
    binary_activations
        Whether the inputs of linears, the queries, keys, values and the attention are binary.
    quantized_ends
        Whether the patch embedding and the heads are 8-bit.
    """

    image_size: int = 224
    channels: int = 3
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: float = 4.0
    classes: int = 1000
    distilled: bool = True
    groups: Literal[1, 3] = 3
    binary_weights: Literal["all", "mlp", "none"] = "all"
    binary_activations: bool = True
    quantized_ends: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.groups not in (1, 3):
            raise ValueError(f"groups is {self.groups}, expected 1 or 3")
        if self.binary_activations and self.binary_weights != "all":
            raise ValueError('binary activations need binary_weights="all"')

    @property
    def tokens(self) -> int:
        """Number of tokens: patches, class token and, where distilled, distillation token."""
        return (self.image_size // self.patch_size) ** 2 + 1 + self.distilled

    @property
    def hidden(self) -> int:
        """Width of the layer inside the MLP."""
        return int(self.width * self.mlp_ratio)

    @property
    def is_float(self) -> bool:
        """Whether nothing at all is quantised."""
        return self.binary_weights == "none" and not self.quantized_ends

    def stage1(self) -> "GsbConfig":
        """Return the network of training stage 1: binary weights in the MLP, nothing else."""
        return replace(self, binary_weights="mlp", binary_activations=False, quantized_ends=False)

    def without_quantizers(self) -> "GsbConfig":
        """Return the float network of the same topology."""
        return replace(self, binary_weights="none", binary_activations=False, quantized_ends=False)


PRESETS: dict[str, GsbConfig] = {
    "deit-tiny": GsbConfig(width=192, heads=3),
    "deit-small": GsbConfig(width=384, heads=6),
    "deit-base": GsbConfig(width=768, heads=12),
    "mini": GsbConfig(
        image_size=32, patch_size=8, width=96, depth=2, heads=4, mlp_ratio=2.0, classes=10
    ),
    "mini64": GsbConfig(
        image_size=32, patch_size=8, width=128, depth=2, heads=2, mlp_ratio=2.0, classes=10
    ),
}


def _linear(config: GsbConfig, inputs: int, outputs: int, activation: Activation) -> nn.Module:
    """Return a linear of the attention: binary in stage 2, float before."""
    if config.binary_weights == "all":
        kind = activation if config.binary_activations else Activation.FLOAT
        return QuantLinear(inputs, outputs, Weight.BINARY, kind)
    return nn.Linear(inputs, outputs)


class Attention(nn.Module):
    """Attention with binary queries, keys, values and attention weights."""

    def __init__(self, config: GsbConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.scale = q.fp32((config.width // config.heads) ** -0.5)
        self.groups = config.groups
        self.binary = config.binary_activations
        self.calibrating = False
        self.qkv = _linear(config, config.width, 3 * config.width, Activation.SIGNED)
        self.proj = _linear(config, config.width, config.width, Activation.SIGNED)
        if not self.binary:
            return
        head = (config.heads, 1, config.width // config.heads)
        self.move_q, self.move_k, self.move_v = Move(*head), Move(*head), Move(*head)
        self.move_att = Move(config.heads, config.tokens, config.tokens)
        self.clip_query, self.clip_key = new_scale(), new_scale()
        self.clip_value, self.clip_attn = new_scale(), new_scale()
        if self.groups == 3:
            self.clip_value2, self.clip_value3 = new_scale(), new_scale()
            self.clip_attn2, self.clip_attn3 = new_scale(), new_scale()

    def _sign(self, x: Tensor, scale: Tensor) -> Tensor:
        if self.calibrating:
            scale.data.copy_(initial_scale(x, Activation.SIGNED))
        return quantize(x, scale, Activation.SIGNED, training=self.training)

    def _value(self, v: Tensor) -> Tensor:
        if self.groups == 1:
            return self._sign(v, self.clip_value)
        scales = (self.clip_value, self.clip_value2, self.clip_value3)
        if self.calibrating:
            _set_group_scales(v, q.value_masks(v), 2, scales)
        grouped: Tensor = (q.ValueGroups.apply if self.training else q.value_groups)(v, *scales)
        return grouped

    def _weights(self, p: Tensor) -> Tensor:
        if self.groups == 1:
            if self.calibrating:
                self.clip_attn.data.copy_(initial_scale(p, Activation.UNSIGNED))
            return quantize(p, self.clip_attn, Activation.UNSIGNED, training=self.training)
        scales = (self.clip_attn, self.clip_attn2, self.clip_attn3)
        if self.calibrating:
            _set_group_scales(p, q.attention_masks(p), 4, scales)
        grouped: Tensor = (q.AttentionGroups.apply if self.training else q.attention_groups)(
            p, *scales
        )
        return grouped

    def forward(self, x: Tensor) -> Tensor:
        """Return the attention's output, ``(B, N, D)``."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.binary:
            query = self.move_q(query)
            key = self.move_k(key)
            value = self.move_v(value)
            query = self._sign(query, self.clip_query)
            key = self._sign(key, self.clip_key)
            value = self._value(value)
        weights = (query @ key.transpose(-2, -1)) * self.scale
        weights = weights.softmax(dim=-1)
        if self.binary:
            weights = self._weights(self.move_att(weights))
        x = (weights @ value).transpose(1, 2).reshape(batch, tokens, width)
        out: Tensor = self.proj(x)
        return out


def _set_group_scales(
    x: Tensor, masks: tuple[Tensor, Tensor], factor: int, scales: tuple[nn.Parameter, ...]
) -> None:
    """Set each group's scale so that the sum of its scales is ``factor`` times its mean |x|."""
    t1, t2 = masks
    total = torch.zeros(())
    for scale, members in zip(scales, (1 - t1, t1 - t2, t2), strict=True):
        mean = (x.abs() * members).sum() / members.sum().clamp(min=1)
        scale.data.copy_((factor * mean - total).clamp(min=q.SMALLEST_SCALE))
        total = total + scale.data


class Mlp(nn.Module):
    """Linear, GELU, clip to ±10, linear."""

    def __init__(self, config: GsbConfig) -> None:
        super().__init__()
        self.clips = not config.is_float
        if config.binary_weights == "none":
            self.fc1: nn.Module = nn.Linear(config.width, config.hidden)
            self.fc2: nn.Module = nn.Linear(config.hidden, config.width)
            return
        signed, unsigned = Activation.SIGNED, Activation.UNSIGNED
        if not config.binary_activations:
            signed = unsigned = Activation.FLOAT
        self.fc1 = QuantLinear(config.width, config.hidden, Weight.BINARY, signed)
        self.fc2 = QuantLinear(config.hidden, config.width, Weight.BINARY, unsigned)

    def forward(self, x: Tensor) -> Tensor:
        """Return the MLP's output, ``(B, N, D)``."""
        x = self.fc1(x)
        if self.clips:
            x = x * 0.5 * (1.0 + torch.erf(x / _ROOT_2))
            x = torch.clip(x, -10.0, 10.0)
        else:
            x = F.gelu(x)
        out: Tensor = self.fc2(x)
        return out


def _norm(config: GsbConfig) -> nn.Module:
    return nn.LayerNorm(config.width, eps=1e-6) if config.is_float else LayerNorm(config.width)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, config: GsbConfig) -> None:
        super().__init__()
        self.norm1 = _norm(config)
        self.attn = Attention(config)
        self.norm2 = _norm(config)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, ``(B, N, D)``."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Image to patch tokens."""

    def __init__(self, config: GsbConfig) -> None:
        super().__init__()
        shape = (config.channels, config.width, config.patch_size)
        self.proj: nn.Module = (
            QuantPatchConv(*shape)
            if config.quantized_ends
            else nn.Conv2d(*shape, stride=config.patch_size)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the patch tokens, ``(B, N - tokens, D)``."""
        patches: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return patches


class Gsb(nn.Module):
    """A vision transformer, binary, partly binary or float as its configuration says.

    In training mode a distilled network returns both heads' logits, in evaluation their mean.
    """

    def __init__(self, config: GsbConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.dist_token = (
            nn.Parameter(torch.zeros(1, 1, config.width)) if config.distilled else None
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.Sequential(*(Block(config) for _ in range(config.depth)))
        self.norm = _norm(config)
        self.head = self._head()
        self.head_dist = self._head() if config.distilled else None
        for parameter in (self.cls_token, self.dist_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def _head(self) -> nn.Module:
        config = self.config
        if config.quantized_ends:
            return QuantLinear(config.width, config.classes, Weight.INT8, Activation.INT8)
        return nn.Linear(config.width, config.classes)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Turn ``(B, channels, image_size, image_size)`` into ``(B, classes)`` logits."""
        x = self.patch_embed(x)
        tokens = [self.cls_token.expand(x.shape[0], -1, -1), x]
        if self.dist_token is not None:
            tokens.insert(1, self.dist_token.expand(x.shape[0], -1, -1))
        x = torch.cat(tokens, dim=1)
        x = x + self.pos_embed
        x = self.blocks(x)
        x = self.norm(x)
        logits: Tensor = self.head(x[:, 0])
        if self.head_dist is None:
            return logits
        logits_dist: Tensor = self.head_dist(x[:, 1])
        if self.training:
            return logits, logits_dist
        return (logits + logits_dist) / 2


def float_vit(config: GsbConfig) -> Gsb:
    """Return the float network of the same topology: teacher, and opponent in benchmarks."""
    return Gsb(config.without_quantizers())
