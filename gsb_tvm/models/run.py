"""A training run that can be stopped and resumed: three stages, one file that holds its state."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from gsb_tvm.dialect.errors import OutputError, UsageError
from gsb_tvm.models.checkpoint import CheckpointError, read_run
from gsb_tvm.models.datasets import Dataset
from gsb_tvm.models.gsb import Gsb, GsbConfig
from gsb_tvm.models.recipe import (
    STAGES,
    Progress,
    Recipe,
    Stage,
    accuracy,
    cosine,
    make_optimizer,
    stage_config,
    start_stage,
    train_epoch,
)

Observer = Callable[[Progress], None]


@dataclass
class Run:
    """The state of a training run between two epochs.

    ``model`` is the network of ``stage`` after ``epoch`` of its epochs; ``teacher`` is set from
    stage 1 on. ``accuracies`` are the test accuracies of finished stages, one image a forward.
    """

    config: GsbConfig
    recipe: Recipe
    stage: Stage
    model: Gsb
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    epoch: int = 0
    teacher: Gsb | None = None
    accuracies: dict[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Number of epochs of the present stage."""
        return self.recipe.epochs[STAGES.index(self.stage)]


def _enter(
    config: GsbConfig, recipe: Recipe, stage: Stage, data: Dataset, previous: Gsb | None
) -> tuple[Gsb, torch.optim.Optimizer, torch.Generator]:
    seed = recipe.seed + STAGES.index(stage)
    torch.manual_seed(seed)
    model = start_stage(config, stage, previous, data.train_images[: recipe.batch])
    return model, make_optimizer(model, recipe), torch.Generator().manual_seed(seed)


def start(config: GsbConfig, recipe: Recipe, data: Dataset) -> Run:
    """Return a run before its first epoch."""
    return Run(config, recipe, "teacher", *_enter(config, recipe, "teacher", data, None))


def next_stage(run: Run, data: Dataset, config: GsbConfig | None = None) -> Run:
    """Return a run at the start of the stage after ``run``'s, which is left as it is.

    ``config`` replaces the run's from here on, for instance with one group instead of three.
    """
    stage = STAGES[STAGES.index(run.stage) + 1]
    config = config or run.config
    teacher = run.teacher or run.model.eval()
    entered = _enter(config, run.recipe, stage, data, run.model)
    return Run(
        config, run.recipe, stage, *entered, teacher=teacher, accuracies=dict(run.accuracies)
    )


def finish_stage(run: Run, data: Dataset, observe: Observer, save: Path | None = None) -> Run:
    """Train the remaining epochs of the present stage and measure its test accuracy."""
    rates = cosine(run.recipe, run.epochs)
    while run.epoch < run.epochs:

        def report(step: int, steps: int, loss: float) -> None:
            observe(Progress(run.stage, run.epoch, run.epochs, step, steps, loss))

        train_epoch(
            run.model,
            run.optimizer,
            data,
            run.recipe,
            run.generator,
            run.teacher,
            report,
            rates,
            run.epoch,
        )
        run.epoch += 1
        if save is not None:
            save_run(run, save)
    run.accuracies[run.stage] = accuracy(run.model, data.test_images, data.test_labels)
    if save is not None:
        save_run(run, save)
    return run


def finish(run: Run, data: Dataset, observe: Observer, save: Path | None = None) -> Run:
    """Train to the end of stage 2."""
    run = finish_stage(run, data, observe, save)
    while run.stage != STAGES[-1]:
        run = finish_stage(next_stage(run, data), data, observe, save)
    run.model.eval()
    return run


def save_run(run: Run, path: Path) -> None:
    """Write the run, replacing an older file only when the new one is complete."""
    content = {
        "model": run.model.state_dict(),
        "teacher": run.teacher.state_dict() if run.teacher else None,
        "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(),
        "config": asdict(run.config),
        "recipe": asdict(run.recipe),
        "stage": run.stage,
        "epoch": run.epoch,
        "accuracies": run.accuracies,
    }
    part = path.with_name(path.name + ".part")
    try:
        torch.save(content, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise OutputError(
            f"{path}: cannot write the checkpoint. Choose a folder that can be written."
        ) from error


def load_run(path: Path) -> Run:
    """Return the run in a file written by `save_run`.

    Raises
    ------
    CheckpointError
        If the file cannot be read or holds a network only.
    """
    content: dict[str, Any] = read_run(path)
    try:
        return _restore(content)
    except (RuntimeError, ValueError, TypeError, KeyError, UsageError) as error:
        raise CheckpointError(
            f"{path}: its network and its configuration do not fit together. Start the run again."
        ) from error


def _restore(content: dict[str, Any]) -> Run:
    config = GsbConfig(**content["config"])
    recipe = Recipe(**content["recipe"])
    stage: Stage = content["stage"]
    STAGES.index(stage)
    model = Gsb(stage_config(config, stage))
    model.load_state_dict(content["model"])
    optimizer = make_optimizer(model, recipe)
    optimizer.load_state_dict(content["optimizer"])
    generator = torch.Generator()
    generator.set_state(content["generator"])
    teacher = None
    if content["teacher"] is not None:
        teacher = Gsb(config.without_quantizers()).eval()
        teacher.load_state_dict(content["teacher"])
    epoch, accuracies = int(content["epoch"]), dict(content["accuracies"])
    return Run(config, recipe, stage, model, optimizer, generator, epoch, teacher, accuracies)
