"""From a path to a ModelProto whose tensors are all inside it, within limits of size."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.external import inline_external_data, tensors
from gsb_tvm.frontend.messages import shown

# protobuf, and with it onnx.checker, ends at 2 GiB.
MAX_BYTES = 2**31 - 1


@dataclass(frozen=True)
class Source:
    """A decoded model, what to call it in messages, and the digest of all its bytes."""

    proto: onnx.ModelProto
    name: str
    sha256: str


def read(source: str | os.PathLike[str] | onnx.ModelProto, max_bytes: int) -> Source:
    """Decode a model and bring its external tensors inside.

    Raises
    ------
    ModelError
        If the file is missing, no regular file, too large, not ONNX, or its external data are
        missing, damaged or outside the model's folder.
    """
    if isinstance(source, onnx.ModelProto):
        return _from_proto(source, max_bytes)
    path = Path(source)
    data = _bytes(path, max_bytes)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(
            f"{path}: it is not an ONNX model, or a damaged one ({len(data)} bytes that protobuf "
            "cannot decode). Export or copy it again."
        ) from error
    digest = hashlib.sha256(data)
    inline_external_data(proto, path, max_bytes - len(data), digest.update)
    return Source(proto, str(path), digest.hexdigest())


def _from_proto(proto: onnx.ModelProto, max_bytes: int) -> Source:
    name = shown(proto.graph.name or "model")
    for tensor in tensors(proto.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelError(
                f'{name}, tensor "{shown(tensor.name)}": its data are in another file, and a '
                "ModelProto has no folder. Pass the path of the model instead."
            )
    try:
        data = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise ModelError(f"{name}: it is larger than protobuf's 2 GiB.") from error
    if len(data) > max_bytes:
        raise ModelError(_too_large(name, len(data), max_bytes))
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return Source(copy, name, hashlib.sha256(data).hexdigest())


def _bytes(path: Path, max_bytes: int) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: it is not a regular file. Give the path of an .onnx file.")
        if status.st_size > max_bytes:
            raise ModelError(_too_large(str(path), status.st_size, max_bytes))
        # The file may grow between the two calls: never read beyond the limit.
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no such file.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: the file cannot be read ({reason}).") from error
    if len(data) > max_bytes:
        raise ModelError(_too_large(str(path), len(data), max_bytes))
    if not data:
        raise ModelError(f"{path}: the file is empty. Export or copy the model again.")
    return data


def _too_large(name: str, size: int, limit: int) -> str:
    return (
        f"{name}: the model has {size} bytes, and the limit is {limit}. "
        "Larger models are not handled."
    )
