"""Inputs of a model from files, or drawn at random."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.metadata import Tensor
from gsb_tvm.runtime.verify import draw


def read_inputs(words: Sequence[str], inputs: Sequence[Tensor]) -> dict[str, Any]:
    """Arrays by input's name from words ``[NAME=]FILE``; random numbers, seed 0, without any.

    Raises
    ------
    UsageError
        There are more files than inputs, or one is no array of numbers.
    """
    if not words:
        rng = np.random.default_rng(0)
        return {spec.name: draw(spec, rng) for spec in inputs}
    names = [spec.name for spec in inputs]
    arrays: dict[str, Any] = {}
    for at, word in enumerate(words):
        name, equals, path = word.partition("=")
        if not equals:
            if at >= len(names):
                raise UsageError(f"{len(words)} inputs given, the model takes {len(names)}.")
            name, path = names[at], word
        arrays[name] = _array(Path(path))
    return arrays


def _array(path: Path) -> Any:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as err:
        raise UsageError(f"{path}: cannot be read ({err.strerror or err}).") from err
    except (ValueError, EOFError) as err:
        # NumPy takes anything else for pickled objects, and advises to load them.
        raise UsageError(
            f"{path}: not a whole .npy file of numbers. Write it with numpy.save."
        ) from err
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path}: an archive of several arrays, expected a single .npy array.")
    return array
