"""PyTorch's side of the comparison: DeiT-Small in float, as fast as PyTorch makes it."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsb_tvm.models import quantizers
from gsb_tvm.models.bake import bake_weights
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Attention, Gsb, GsbConfig, float_vit
from gsb_tvm.models.quantizers import SMALLEST_SCALE

Way = Literal["eager", "default", "max-autotune-no-cudagraphs"]
"""As PyTorch runs it, or the mode of ``torch.compile``: graphs are recorded here, for all alike."""

_WARM_UP = 3


class FusedAttention(nn.Module):
    """Attention by PyTorch's one kernel for it."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = attention.heads, attention.qkv, attention.proj

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, D)`` to the same."""
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(x.transpose(1, 2).reshape(batch, tokens, width))
        return out


def vit(config: GsbConfig) -> Gsb:
    """The float network of a GSB one, its attention fused."""
    model = float_vit(config).eval()
    for block in model.blocks:
        block.attn = FusedAttention(block.attn)
    return model


@dataclass(frozen=True)
class Opponent:
    """A network in PyTorch."""

    name: str
    dtype: torch.dtype
    way: Way = "eager"
    is_gsb: bool = False

    @cache  # noqa: B019  a few networks for as long as the process is
    def model(self, preset: str) -> nn.Module:
        """The network on the GPU, not compiled."""
        config = PRESETS[preset]
        made = bake_weights(realistic_(Gsb(config), 0).eval()) if self.is_gsb else vit(config)
        return made.to("cuda", self.dtype)


OPPONENTS = (
    Opponent("torch bf16, compiled", torch.bfloat16, "default"),
    Opponent("torch bf16, max-autotune", torch.bfloat16, "max-autotune-no-cudagraphs"),
    Opponent("torch bf16", torch.bfloat16),
    Opponent("torch fp16", torch.float16),
    Opponent("torch of GSB itself, tf32", torch.float32, is_gsb=True),
)


def run_of(opponent: Opponent, batch: int, preset: str) -> Callable[[], object]:
    """A network on a batch, as a graph that is replayed."""
    torch.set_float32_matmul_precision("high")
    config = PRESETS[preset]
    model = opponent.model(preset)
    if opponent.way != "eager":
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder())
        torch._dynamo.reset()
        model = torch.compile(model, mode=opponent.way, dynamic=False, fullgraph=True)
    size = config.image_size
    images = torch.randn(batch, config.channels, size, size, device="cuda", dtype=opponent.dtype)

    def call() -> Any:
        with torch.inference_mode():
            return model(images)

    if not opponent.is_gsb:
        return recorded(call)
    # Its own makes a constant on the CPU, which a graph cannot copy.
    with mock.patch.object(quantizers, "positive", lambda scale: scale.clamp(min=SMALLEST_SCALE)):
        return recorded(call)


def recorded(call: Callable[[], Any]) -> Callable[[], object]:
    """A call as a graph: what is returned replays it on the current stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def cache_folder() -> Path:
    """Where ``torch.compile`` and TensorRT keep what they made, for other processes."""
    folder = Path(tempfile.gettempdir()) / f"gsb-tvm-opponents-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def mark(way: str, batch: int) -> Path:
    """A file that is there once what takes long to compile has been compiled for a batch."""
    return cache_folder() / f"made-{way}-{batch}"
