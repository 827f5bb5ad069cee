"""What a model is called with: arrays of the right kind, contiguous, and aligned scratch."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.elf import ALIGNMENT

Array = NDArray[Any]


def as_input(array: Array, spec: meta.Tensor) -> Array:
    """Take ``array`` as a C-contiguous one of the dtype and shape of ``spec``.

    Raises
    ------
    UsageError
        Its dtype, rank or shape differ.
    """
    if array.dtype != np.dtype(spec.dtype):
        raise UsageError(
            f'input "{spec.name}" is {array.dtype}, expected {spec.dtype}. Convert it first.'
        )
    if array.ndim != len(spec.shape):
        raise UsageError(
            f'input "{spec.name}" has {array.ndim} dimensions {array.shape}, '
            f"expected {len(spec.shape)}: {spec.shape}."
        )
    if array.shape != spec.shape:
        raise UsageError(
            f'input "{spec.name}" has shape {array.shape}, expected {spec.shape}. '
            "Compile the model for another batch or image size if that is what you need."
        )
    return np.asarray(array, order="C")


def as_array(value: Any, name: str) -> Array:
    """Take ``value``, given for the input ``name``, as an array.

    Raises
    ------
    UsageError
        It is not one on the CPU.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        if is_torch(value):
            return np.asarray(value.detach().numpy())
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise UsageError(
            f'input "{name}" cannot be read as an array on the CPU ({reason}). '
            "Move it to the CPU first."
        ) from err
    raise UsageError(
        f'input "{name}" is a {type(value).__name__}, expected a NumPy array, a torch tensor, or '
        "an object with __dlpack__."
    )


def is_torch(value: Any) -> bool:
    """Whether ``value`` is a torch tensor; imports nothing."""
    # Another thread may be in the middle of importing torch.
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def zeros(size: int) -> Array:
    """``size`` bytes of zeros, aligned."""
    room = np.zeros(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]


def address(array: Array) -> int:
    """Where an array's elements begin."""
    start: int = array.__array_interface__["data"][0]
    return start
