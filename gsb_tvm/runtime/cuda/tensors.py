"""Tensors that a call takes or gives: on the GPU as they are, by DLPack, or NumPy's."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.arrays import as_array, as_input
from gsb_tvm.runtime.cuda.actions import WORD_BYTES
from gsb_tvm.runtime.cuda.driver import Pointer, Stream

_CUDA, _CUDA_MANAGED = 2, 13  # DLDeviceType, dlpack.h


@dataclass(frozen=True)
class OnDevice:
    """A tensor in the GPU's memory; ``owner`` keeps it there."""

    pointer: Pointer
    shape: tuple[int, ...]
    dtype: str
    owner: Any


def is_on_device(value: Any) -> bool:
    """Whether a value says by DLPack that it is in a GPU's memory."""
    where = getattr(value, "__dlpack_device__", None)
    return where is not None and int(where()[0]) in (_CUDA, _CUDA_MANAGED)


def taken(value: Any, name: str, ordinal: int, stream: Stream) -> OnDevice:
    """A tensor of GPU ``ordinal`` as it is, without a copy; ``stream`` will read or write it.

    Raises
    ------
    UsageError
        It is on another GPU, or its elements do not lie one behind the other.
    """
    import tvm_ffi

    device = int(value.__dlpack_device__()[1])
    if device != ordinal:
        raise UsageError(
            f'"{name}" is on GPU {device}, and the model on GPU {ordinal}. Move one of them.'
        )
    detached = value.detach() if hasattr(value, "detach") else value
    try:
        tensor = tvm_ffi.from_dlpack(_ForStream(detached, stream))
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise UsageError(f'"{name}" cannot be read by DLPack ({reason}).') from err
    if not tensor.is_contiguous():
        raise UsageError(
            f'"{name}" is not contiguous: its elements must lie one behind the other. '
            "Call .contiguous() or the like first."
        )
    shape = tuple(int(extent) for extent in tensor.shape)
    return OnDevice(int(tensor.data_ptr()), shape, str(tensor.dtype), tensor)


class _ForStream:
    """A tensor whose producer is told which stream will use it."""

    def __init__(self, value: Any, stream: Stream) -> None:
        self._value, self._stream = value, stream

    def __dlpack_device__(self) -> Any:
        return self._value.__dlpack_device__()

    def __dlpack__(self, **wanted: Any) -> Any:
        # 1 is the legacy default stream; 0 is ambiguous and not allowed (array API standard).
        return self._value.__dlpack__(**{**wanted, "stream": self._stream or 1})


def checked(tensor: OnDevice, spec: meta.Tensor) -> OnDevice:
    """``tensor``, if its dtype and shape are those of ``spec``.

    Raises
    ------
    UsageError
        They are not.
    """
    if tensor.dtype != spec.dtype or tensor.shape != tuple(spec.shape):
        raise UsageError(
            f'"{spec.name}" is {tensor.dtype} {tensor.shape}, expected {spec.dtype} '
            f"{tuple(spec.shape)}."
        )
    return tensor


def aligned(tensor: OnDevice, spec: meta.Tensor) -> OnDevice:
    """``tensor``, if kernels can read it where it is.

    Raises
    ------
    UsageError
        It is at no multiple of 16 bytes, as a part of another tensor may be.
    """
    if tensor.pointer % WORD_BYTES:
        raise UsageError(
            f'"{spec.name}" is at no multiple of {WORD_BYTES} bytes, in which the GPU reads it. '
            "Give a copy, as by .clone()."
        )
    return tensor


def on_host(value: Any, spec: meta.Tensor) -> Any:
    """A value in the host's memory as a contiguous array of dtype and shape of ``spec``.

    Raises
    ------
    UsageError
        It is none.
    """
    return as_input(as_array(value, spec.name), spec)


def like(values: Sequence[Any], specs: Sequence[meta.Tensor]) -> list[Any] | None:
    """New tensors of the framework that ``values`` come from; None where they are NumPy's.

    Raises
    ------
    UsageError
        It is neither PyTorch nor CuPy.
    """
    value = next((v for v in values if is_on_device(v)), None)
    if value is None:
        return None
    library = type(value).__module__.partition(".")[0]
    module = sys.modules.get(library)
    if library == "torch":
        assert module is not None
        return [
            module.empty(tuple(s.shape), dtype=getattr(module, s.dtype), device=value.device)
            for s in specs
        ]
    if library == "cupy":
        assert module is not None
        with value.device:
            return [module.empty(tuple(s.shape), s.dtype) for s in specs]
    raise UsageError(
        f"inputs are of {library}, for which no outputs can be made. Give tensors to write by out=."
    )


def current_stream(values: Sequence[Any]) -> Stream:
    """The stream on which the framework of ``values`` works now; 0 where there is none."""
    for value in values:
        if not is_on_device(value):
            continue
        library = type(value).__module__.partition(".")[0]
        module = sys.modules.get(library)
        if library == "torch" and module is not None:
            return int(module.cuda.current_stream(value.device).cuda_stream)
        if library == "cupy" and module is not None:
            return int(module.cuda.get_current_stream().ptr)
    return 0


def stream_of(stream: Any) -> Stream:
    """Handle of a stream: a number, or an object of PyTorch, CuPy or ``cuda.core``.

    Raises
    ------
    UsageError
        It is none of them.
    """
    if isinstance(stream, int):
        return stream
    if hasattr(stream, "__cuda_stream__"):
        protocol = stream.__cuda_stream__
        return int((protocol() if callable(protocol) else protocol)[1])
    for attribute in ("cuda_stream", "ptr"):
        if hasattr(stream, attribute):
            return int(getattr(stream, attribute))
    raise UsageError(
        f"stream is a {type(stream).__name__}, expected a handle or a stream of PyTorch or CuPy."
    )
