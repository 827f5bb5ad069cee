"""The data a network is trained on: scikit-learn's digits, or any ``.npz`` of images and labels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.models import demo

_SPLIT_SEED = 0
_TEST_SHARE = 0.2


class Dataset(NamedTuple):
    """Images ``(n, channels, size, size) float32``, labels ``(n,) int64``, in two fixed parts."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    @property
    def classes(self) -> int:
        """Number of classes: the highest label plus one."""
        return 1 + int(max(self.train_labels.max(), self.test_labels.max()))


def digits() -> Dataset:
    """Return scikit-learn's digits in the split of the demo model."""
    train, test = demo.train_split(), demo.test_split()
    return Dataset(*(torch.from_numpy(array) for array in (*train, *test)))


def load(source: str) -> Dataset:
    """Return ``"digits"`` or the arrays ``images`` and ``labels`` of an ``.npz`` file.

    Images are ``(n, channels, size, size)`` or ``(n, size, size)``; integers are scaled from
    [0, 255] to [-1, 1], floats are taken as they are. A fixed fifth of them is the test split.

    Raises
    ------
    UsageError
        If the file cannot be read or its arrays do not fit together.
    """
    if source == "digits":
        return digits()
    images, labels = _read(Path(source))
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[2] != images.shape[3] or labels.shape != images.shape[:1]:
        raise UsageError(
            f"{source}: images have shape {images.shape} and labels {labels.shape}, expected "
            "(n, channels, size, size) and (n,). Save square images with one label each."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.size == 0 or labels.min() < 0:
        raise UsageError(
            f"{source}: labels are {labels.dtype}, expected integers from 0. Number the classes."
        )
    if np.issubdtype(images.dtype, np.integer):
        images = images / 127.5 - 1
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    cut = max(1, int(len(labels) * _TEST_SHARE))
    x = torch.from_numpy(images.astype(np.float32)[order])
    y = torch.from_numpy(labels.astype(np.int64)[order])
    return Dataset(x[cut:], y[cut:], x[:cut], y[:cut])


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"]
    except KeyError as error:
        raise UsageError(
            f"{path}: the array {error.args[0].split()[0]} is missing, expected images and labels. "
            "Save it with numpy.savez(path, images=..., labels=...)."
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot be read as .npz. Save it with "
            "numpy.savez(path, images=..., labels=...), without object arrays."
        ) from error
