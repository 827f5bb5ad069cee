"""Tensors in a GPU's memory, as PyTorch's and CuPy's are, of processes that have neither."""

import ctypes
from typing import Any

import numpy as np

_CUDA, _FLOAT = 2, 2  # DLDeviceType and DLDataTypeCode, dlpack.h


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    """DLManagedTensor of dlpack.h."""

    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    )


_capsule = ctypes.pythonapi.PyCapsule_New
_capsule.restype = ctypes.py_object
_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _keep(_managed: int) -> None:
    """The memory is the tensor's, which outlives what is made of it."""


class GpuTensor:
    """A contiguous float32 tensor of ``shape`` on a GPU; ``streams`` notes who takes it."""

    def __init__(self, gpu: Any, shape: tuple[int, ...]) -> None:
        self._gpu, self.shape = gpu, shape
        self.pointer = gpu.allocate(4 * int(np.prod(shape)))
        self.streams: list[int] = []
        extents = (ctypes.c_int64 * len(shape))(*shape)
        tensor = _Tensor(self.pointer, _CUDA, gpu.ordinal, len(shape), _FLOAT, 32, 1, extents)
        self._managed = _Managed(tensor, None, _keep)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._gpu.ordinal

    def __dlpack__(self, *, stream: int, **_wanted: Any) -> Any:
        self.streams.append(stream)
        return _capsule(ctypes.addressof(self._managed), b"dltensor", None)

    def write(self, array: np.ndarray, stream: int = 0) -> "GpuTensor":
        """Copy an array here."""
        self._gpu.upload(self.pointer, np.ascontiguousarray(array, np.float32), stream)
        return self

    def read(self, stream: int = 0) -> np.ndarray:
        """Copy to an array, behind what the stream does before."""
        found = np.empty(self.shape, np.float32)
        self._gpu.download(found, self.pointer, stream)
        return found
