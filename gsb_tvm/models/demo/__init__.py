"""The demo model, a small GSB network for handwritten digits, and the images it is tested on.

Importing this module needs neither torch nor scikit-learn. Images and labels come from
scikit-learn's ``load_digits`` (1797 images of 8x8 pixels, values 0 to 16, UCI "Optical Recognition
of Handwritten Digits"); the split is fixed. The ONNX file takes ``image (1, 1, 8, 8) float32`` and
returns ``logits (1, 10)``.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ToolchainError

_FOLDER = Path(__file__).parent
_SPLIT_SEED = 0
TEST_COUNT = 360


class Digits(NamedTuple):
    """Images ``(n, 1, 8, 8) float32`` in [-1, 1] and labels ``(n,) int64``."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def model_path() -> Path:
    """Return the path of the demo model's ONNX file."""
    return _FOLDER / "gsb_digits.onnx"


def record() -> dict[str, Any]:
    """Return how the demo model was trained, its accuracies, and the hash of its file."""
    content: dict[str, Any] = json.loads((_FOLDER / "gsb_digits.json").read_text("utf-8"))
    return content


def _split() -> tuple[Digits, Digits]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ToolchainError(
            "scikit-learn is not installed, which holds the digits. Run pip install scikit-learn."
        ) from error
    raw = load_digits()
    images = (raw.images[:, None] / 8 - 1).astype(np.float32)
    labels = raw.target.astype(np.int64)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    test, train = order[:TEST_COUNT], order[TEST_COUNT:]
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def train_split() -> Digits:
    """Return the 1437 training images; needs scikit-learn."""
    return _split()[0]


def test_split() -> Digits:
    """Return the 360 test images, which no training sees; needs scikit-learn."""
    return _split()[1]
