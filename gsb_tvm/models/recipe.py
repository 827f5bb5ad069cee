"""Two-stage training of GSB with hard-label distillation (METHODS: arXiv 2305.07931, losses.py).

teacher: the float network, on labels. Stage 1: binary weights in the MLP, everything else float,
from the teacher's parameters. Stage 2: binary weights and activations with group superposition,
from stage 1. Stages 1 and 2 minimise ``0.5 CE(class head, label) + 0.5 CE(distillation head,
argmax teacher)``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.models.datasets import Dataset
from gsb_tvm.models.fill import calibrate
from gsb_tvm.models.gsb import Gsb, GsbConfig

Stage = Literal["teacher", "stage1", "stage2"]
STAGES: tuple[Stage, ...] = ("teacher", "stage1", "stage2")


@dataclass(frozen=True)
class Recipe:
    """What a training run does; the defaults for learning rate and decay are the paper's."""

    epochs: tuple[int, int, int] = (60, 600, 300)
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    weight_decay: float = 0.05
    batch: int = 64
    label_smoothing: float = 0.1
    jitter: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "epochs": len(self.epochs) != 3 or min(self.epochs) < 0,
            "learning_rate": not 0 < self.learning_rate < math.inf,
            "weight_decay": not 0 <= self.weight_decay < math.inf,
            "batch": self.batch < 1,
            "label_smoothing": not 0 <= self.label_smoothing <= 1,
            "jitter": not 0 <= self.jitter <= 1,
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            raise UsageError(f"{name} is {getattr(self, name)}. Change --{name.replace('_', '-')}.")


@dataclass
class Progress:
    """Where a stage stands, handed to the observer after every step."""

    stage: Stage
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


def stage_config(config: GsbConfig, stage: Stage) -> GsbConfig:
    """Return what is quantised in a stage."""
    if stage == "teacher":
        return config.without_quantizers()
    return config.stage1() if stage == "stage1" else config


def start_stage(config: GsbConfig, stage: Stage, previous: Gsb | None, images: Tensor) -> Gsb:
    """Return a stage's network: parameters of the stage before, scales from ``images``."""
    model = Gsb(stage_config(config, stage))
    if previous is not None:
        shared = {k: v for k, v in previous.state_dict().items() if k in model.state_dict()}
        model.load_state_dict(shared, strict=False)
    else:
        # Deviation 0.02 suits width 384; narrow networks need weights that keep the variance.
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
    calibrate(model, images)
    return model


def make_optimizer(model: Gsb, recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW; matrices decay, biases, norms, moves, scales and embeddings do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and name.endswith("weight")
        (decayed if is_matrix else kept).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate)


def distillation_loss(
    outputs: Tensor | tuple[Tensor, Tensor],
    labels: Tensor,
    teacher_labels: Tensor,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return ``0.5 CE(class head, label) + 0.5 CE(distillation head, teacher's label)``.

    A network without a distillation token answers both questions with its only head.
    """
    first, second = outputs if isinstance(outputs, tuple) else (outputs, outputs)
    truth = F.cross_entropy(first, labels, label_smoothing=label_smoothing)
    return 0.5 * truth + 0.5 * F.cross_entropy(second, teacher_labels)


def jittered(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Turn, scale and move each image at random, bilinearly, repeating its border.

    At strength 1: up to 15 degrees, 10 % and one pixel.
    """
    if strength == 0:
        return images
    count, _, _, columns = images.shape
    draws = (2 * torch.rand(4, count, generator=generator) - 1) * strength
    angle = draws[0] * math.radians(15)
    scale = 1 + 0.1 * draws[1]
    # The grid spans [-1, 1] over all columns, so a pixel is 2 / columns wide.
    right, down = draws[2:] * (2 / columns)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    transforms = torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(count, 2, 3)
    grid = F.affine_grid(transforms, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def cosine(recipe: Recipe, epochs: int) -> Callable[[float], float]:
    """Return the learning rate as a function of the epoch, half a cosine from first to final."""
    span = recipe.learning_rate - recipe.final_learning_rate

    def rate(epoch: float) -> float:
        return recipe.final_learning_rate + span * (1 + math.cos(math.pi * epoch / epochs)) / 2

    return rate


def train_epoch(
    model: Gsb,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    recipe: Recipe,
    generator: torch.Generator,
    teacher: Gsb | None,
    observe: Callable[[int, int, float], None],
    learning_rates: Callable[[float], float],
    epoch: int,
) -> None:
    """Go through the training images once; the learning rate follows ``learning_rates(epoch)``."""
    model.train()
    order = torch.randperm(len(data.train_labels), generator=generator)
    batches = order.split(recipe.batch)
    for step, rows in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rates(epoch + step / len(batches))
        images = jittered(data.train_images[rows], recipe.jitter, generator)
        labels = data.train_labels[rows]
        teacher_labels = labels
        if teacher is not None:
            with torch.no_grad():
                teacher_labels = teacher(images).argmax(1)
        loss = distillation_loss(model(images), labels, teacher_labels, recipe.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        observe(step + 1, len(batches), loss.item())


@torch.no_grad()
def accuracy(model: Gsb, images: Tensor, labels: Tensor, batch: int = 1) -> float:
    """Return the share classified right; GSB's masks span a batch, so its size matters."""
    was_training = model.training
    model.eval()
    right = sum(
        int((model(x).argmax(1) == y).sum())
        for x, y in zip(images.split(batch), labels.split(batch), strict=True)
    )
    model.train(was_training)
    return right / len(labels)
