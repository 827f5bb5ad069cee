"""The training of the demo model, with the ablation that keeps one group instead of three."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gsb_tvm.dialect.errors import OutputError
from gsb_tvm.models.bake import bake_weights, reference_logits
from gsb_tvm.models.datasets import Dataset, digits
from gsb_tvm.models.export import export
from gsb_tvm.models.gsb import Gsb, GsbConfig
from gsb_tvm.models.recipe import Recipe
from gsb_tvm.models.run import Observer, finish_stage, next_stage, start

DEMO_CONFIG = GsbConfig(
    image_size=8,
    channels=1,
    patch_size=2,
    width=96,
    depth=2,
    heads=4,
    mlp_ratio=2.0,
    classes=10,
)
DEMO_RECIPE = Recipe(
    epochs=(40, 40, 60), learning_rate=2e-3, batch=32, label_smoothing=0.0, jitter=0.3, seed=0
)


def train_demo(folder: Path, recipe: Recipe, observe: Observer) -> dict[str, Any]:
    """Train teacher, student and one-group student; write the student and the record.

    Parameters
    ----------
    folder
        Gets ``gsb_digits.onnx`` (weights baked, legacy exporter, batch 1) and ``gsb_digits.json``.

    Returns
    -------
    dict
        The record, as in the JSON file.
    """
    data = digits()
    first = finish_stage(
        next_stage(finish_stage(start(DEMO_CONFIG, recipe, data), data, observe), data),
        data,
        observe,
    )
    student = finish_stage(next_stage(first, data), data, observe)
    one_group = replace(DEMO_CONFIG, groups=1)
    ablation = finish_stage(next_stage(first, data, one_group), data, observe)
    path = export(bake_weights(student.model), folder / "gsb_digits.onnx", "legacy")
    content = path.read_bytes()
    record = {
        "model": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "command": _command(recipe),
        "torch": torch.__version__,
        "test_images": len(data.test_labels),
        "accuracy": {
            "teacher": first.accuracies["teacher"],
            "stage1": first.accuracies["stage1"],
            "student": _exact_accuracy(student.model, data),
            "student_one_group": _exact_accuracy(ablation.model, data),
        },
        "config": asdict(DEMO_CONFIG),
        "recipe": asdict(recipe),
    }
    (folder / "gsb_digits.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return record


def _command(recipe: Recipe) -> str:
    """Return the command line that trains by this recipe."""
    words = ["python -m gsb_tvm.models.train demo"]
    if recipe.seed != DEMO_RECIPE.seed:
        words.append(f"--seed {recipe.seed}")
    if recipe.epochs != DEMO_RECIPE.epochs:
        words.append("--epochs {} {} {}".format(*recipe.epochs))
    return " ".join(words)


def check_writable(folder: Path) -> None:
    """Make the folder and write to it, to find out before the training that one cannot.

    Raises
    ------
    OutputError
        If the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "gsb_digits.json.part"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot write there ({error.strerror}). Choose another folder with --out."
        ) from error


def _exact_accuracy(model: Gsb, data: Dataset) -> float:
    logits = reference_logits(model, data.test_images)
    return float(np.mean(logits.argmax(1) == data.test_labels.numpy()))
