"""Read official GSB checkpoints, and ours, without running anything a file contains."""

import argparse
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.models.gsb import Gsb, GsbConfig

_SHOWN_KEYS = 40
_RUN_KEYS = (
    "model",
    "teacher",
    "optimizer",
    "generator",
    "config",
    "recipe",
    "stage",
    "epoch",
    "accuracies",
)


class CheckpointError(ModelError):
    """A checkpoint that is unsafe, damaged, or of another network."""


class UninitializedScaleWarning(UserWarning):
    """A stored scale is exactly 1, which official code takes for not yet initialised."""


def read_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by key.

    Official files are dictionaries with the network under ``model`` and the command line under
    ``args``; a bare dictionary of tensors is accepted as well. Only tensors, numbers, strings,
    containers and ``argparse.Namespace`` are unpickled.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, holds other objects, or holds no network.
    """
    content = _load(Path(path))
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(
            f"{path}: no network found, expected a dictionary of tensors or one under the key "
            '"model". Save it with torch.save({"model": network.state_dict()}, path).'
        )
    strange = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"{path}: not a tensor: {', '.join(strange[:_SHOWN_KEYS])}. "
            "Save the network's state_dict, not the network."
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def read_run(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what a training run saved.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is not the state of a run.
    """
    content = _load(Path(path))
    absent = [key for key in _RUN_KEYS if not isinstance(content, dict) or key not in content]
    if absent:
        raise CheckpointError(
            f"{path}: not the state of a training run, without {', '.join(absent)}. "
            "Resume from a file written by --save."
        )
    found: dict[str, Any] = content
    return found


def _load(path: Path) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Check the path.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" not in str(error):
            raise _damaged(path) from error
        raise CheckpointError(
            f"{path}: holds objects other than tensors and plain values; reading them could run "
            "code of the file's author. Have its owner save it again with "
            'torch.save({"model": network.state_dict()}, path).'
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a PyTorch checkpoint, or damaged. Fetch the file again and compare its size."
    )


def load_checkpoint(model: Gsb, path: str | os.PathLike[str]) -> Gsb:
    """Fill ``model`` from a checkpoint whose keys and shapes are exactly the model's.

    Raises
    ------
    CheckpointError
        If a key is missing, unexpected or of another shape (every one is named), a value is not
        finite, or the file itself cannot be read.

    Warns
    -----
    UninitializedScaleWarning
        If a scale is exactly 1.
    """
    state = read_state(path)
    problems = _differences(model.state_dict(), state)
    if problems:
        shown = problems[:_SHOWN_KEYS]
        rest = len(problems) - len(shown)
        more = [f"... and {rest} more"] if rest else []
        raise CheckpointError(
            "\n  ".join([f"{path}: does not fit the network:", *shown, *more])
            + "\nChoose the configuration the checkpoint was trained with."
        )
    model.load_state_dict(state)
    untouched = [
        key for key, value in state.items() if _is_scale(key) and bool((value == 1.0).all())
    ]
    if untouched:
        warnings.warn(
            f"{path}: scales exactly 1, which official training sets anew on its first forward: "
            f"{', '.join(untouched[:_SHOWN_KEYS])}. Train further, or calibrate the network.",
            UninitializedScaleWarning,
            stacklevel=2,
        )
    return model


def load_network(path: str | os.PathLike[str], config: GsbConfig) -> Gsb:
    """Return the network of a checkpoint of shape ``config``.

    The number of classes is the checkpoint's, and whether it has one group or three as well.

    Raises
    ------
    CheckpointError
        As `load_checkpoint`.
    """
    state = read_state(path)
    head = state.get("head.bias")
    if head is not None and head.ndim == 1:
        config = replace(config, classes=len(head))
    if "blocks.0.attn.clip_value" in state and "blocks.0.attn.clip_value2" not in state:
        config = replace(config, groups=1)
    return load_checkpoint(Gsb(config), path)


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    lines = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in found]
    lines += [
        f"unexpected: {key} {tuple(found[key].shape)}" for key in found if key not in expected
    ]
    for key in expected.keys() & found.keys():
        if expected[key].shape != found[key].shape:
            lines.append(
                f"wrong shape: {key} is {tuple(found[key].shape)}, "
                f"expected {tuple(expected[key].shape)}"
            )
        elif not torch.isfinite(found[key].float()).all():
            lines.append(f"not finite: {key} holds NaN or infinity")
    order = ("missing", "unexpected", "wrong shape", "not finite")
    return sorted(lines, key=lambda line: (order.index(line.split(":")[0]), line))


def _is_scale(key: str) -> bool:
    name = key.rsplit(".", 1)[-1]
    return name.startswith("clip_") or name.endswith("clip_val")
