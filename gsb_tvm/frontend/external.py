"""External tensor data, read only from regular files inside the model's own folder.

Nothing is opened before its path is found safe: the path is walked folder by folder from the
model's folder, no link is followed, and a file of several names (hard links) is refused because
another of its names may lie outside.
"""

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import onnx

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.messages import first_sentence, shown

# Elements whose bytes lie one after the other, and the size of one in bits.
_BITS = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.BFLOAT16: 16,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.UINT32: 32,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.UINT64: 64,
    onnx.TensorProto.BOOL: 8,
}


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a graph: initializers, attributes, and those of subgraphs."""
    graphs = [graph]
    while graphs:
        current = graphs.pop()
        yield from current.initializer
        for sparse in current.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in current.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs.extend(attribute.graphs)


def inline_external_data(
    proto: onnx.ModelProto, path: Path, max_bytes: int, update: Callable[[bytes], None]
) -> None:
    """Replace each external tensor's reference by its bytes.

    Parameters
    ----------
    max_bytes
        Limit on the sum of all external data.
    update
        Called with every tensor's bytes, in the order of the model; takes the digest.

    Raises
    ------
    ModelError
        If a file is missing, outside the folder, no plain file, or too short for its tensor.
    """
    left = max_bytes
    for tensor in tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        where = f'{path}, tensor "{shown(tensor.name)}"'
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = _location(where, entries.get("location", ""))
        size = _tensor_bytes(where, tensor)
        offset = _number(where, "offset", entries.get("offset", "0"))
        length = _number(where, "length", entries["length"]) if "length" in entries else size
        if length != size:
            raise ModelError(
                f"{where}: its external data have length {length}, and its shape "
                f"{list(tensor.dims)} needs {size} bytes. Export the model again."
            )
        if size > left:
            raise ModelError(
                f"{where}: the model's external data go beyond the limit of {max_bytes} bytes. "
                "Larger models are not handled."
            )
        data = _read(where, path.parent, location, offset, size)
        left -= size
        update(data)
        tensor.raw_data = data
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def _location(where: str, location: str) -> PurePosixPath:
    path = PurePosixPath(location)
    safe = (
        location
        and not path.is_absolute()
        and ".." not in path.parts
        and "\\" not in location
        and "\0" not in location
        and ":" not in location
        and path.parts
    )
    if not safe:
        raise ModelError(
            f"{where}: its data are in {location!r}, and only files inside the model's folder are "
            "read. Move the file there and export the model again."
        )
    return path


def _number(where: str, key: str, text: str) -> int:
    # int() takes signs, spaces, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ModelError(
            f"{where}: the {key} of its external data is {text!r}, not a number of bytes. Export "
            "the model again."
        )
    return int(text)


def _tensor_bytes(where: str, tensor: onnx.TensorProto) -> int:
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(
            f"{where}: external data of element type {tensor.data_type} are not handled. Export "
            "the model in float32."
        )
    if min(tensor.dims, default=0) < 0:
        raise ModelError(f"{where}: its shape {list(tensor.dims)} has a negative size.")
    return math.prod(tensor.dims) * bits // 8


def _read(where: str, folder: Path, location: PurePosixPath, offset: int, size: int) -> bytes:
    try:
        with _opened(where, folder, location) as descriptor:
            total = os.fstat(descriptor).st_size
            if offset + size > total:
                raise ModelError(
                    f"{where}: its data reach from byte {offset} to {offset + size} of "
                    f"{str(location)!r}, which has {total}. The file is cut or of another model."
                )
            return _exactly(descriptor, offset, size)
    except FileNotFoundError as error:
        raise ModelError(
            f"{where}: its data file {str(location)!r} is missing beside the model. Copy it there."
        ) from error
    except OSError as error:
        raise ModelError(
            f"{where}: its data file {str(location)!r} cannot be read ({first_sentence(error)})."
        ) from error


def _exactly(descriptor: int, offset: int, size: int) -> bytes:
    """Read ``size`` bytes; one call of pread ends at 2 GiB."""
    parts = []
    while size and (part := os.pread(descriptor, size, offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    if size:
        raise OSError("the file became shorter")
    return b"".join(parts)


@contextlib.contextmanager
def _opened(where: str, folder: Path, location: PurePosixPath) -> Iterator[int]:
    """Open a file below ``folder`` without following a link; look before opening anything."""
    with contextlib.ExitStack() as stack:
        current = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, current)
        for part in location.parts[:-1]:
            _refuse_unless(where, location, current, part, stat.S_ISDIR, "a folder")
            current = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            stack.callback(os.close, current)
        name = location.parts[-1]
        _refuse_unless(where, location, current, name, stat.S_ISREG, "a regular file")
        # O_NONBLOCK: should the file have become a FIFO since, opening it must not wait.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(name, flags, dir_fd=current)
        stack.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ModelError(
                f"{where}: its data file {str(location)!r} has {status.st_nlink} hard links, so it "
                "may be a file outside the model's folder. Replace it by a copy."
            )
        yield descriptor


def _refuse_unless(
    where: str,
    location: PurePosixPath,
    folder: int,
    part: str,
    is_kind: Callable[[int], bool],
    kind: str,
) -> None:
    mode = os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode
    if not is_kind(mode):
        link = "a symbolic link" if stat.S_ISLNK(mode) else f"not {kind}"
        raise ModelError(
            f"{where}: {part!r} of its data file {str(location)!r} is {link}, and links and "
            "special files are not followed. Replace it by a copy of the data."
        )
