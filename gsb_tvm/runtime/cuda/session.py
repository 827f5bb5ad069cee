"""Loading an artefact for a GPU and calling it."""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.arguments import ordered
from gsb_tvm.runtime.arrays import Array
from gsb_tvm.runtime.batches import cut, fit_together, only, sized
from gsb_tvm.runtime.cuda import tensors
from gsb_tvm.runtime.cuda.actions import size_of
from gsb_tvm.runtime.cuda.driver import CudaDevice, Device, Pointer, Stream
from gsb_tvm.runtime.cuda.launching import (
    Held,
    Launcher,
    Resident,
    Room,
    shares,
)
from gsb_tvm.runtime.cuda.symbols import cubin_symbol, ptx_symbol, section_of
from gsb_tvm.runtime.sections import Contents, find_section
from gsb_tvm.targets.gpus import capability

_DEFAULT: Stream = 0


class CudaModule:
    """A compiled model on a GPU, callable from any number of threads and on any stream.

    Attributes
    ----------
    metadata
        What the artefact says about itself.
    """

    def __init__(self, metadata: meta.Metadata, data: Contents, device: Device, name: str) -> None:
        self.metadata = metadata
        self._data, self._device = data, device
        functions = {
            program.entry: _functions(program, metadata, data, device, name)
            for program in metadata.programs
        }
        weights = np.frombuffer(_section(data, meta.WEIGHTS_SECTION, name), np.uint8)
        self._weights = Held(device, weights.nbytes)
        device.upload(self._weights.pointer, weights, 0)
        self._launcher = Launcher(device, functions, self._weights.pointer)
        self._rooms = threading.local()

    @property
    def report(self) -> tuple[meta.Layer, ...]:
        """One row for each matmul-like operator: packed or float, and why."""
        return self.metadata.program.layers

    def __call__(self, *args: Any, out: Any = None, stream: Any = None, **named: Any) -> Any:
        """Run the model.

        Tensors on the GPU are read and written where they are; the call returns as soon as the
        work is in the stream. NumPy's are copied, and the call waits for the result.

        Parameters
        ----------
        *args
            The inputs in order, or one mapping from names to inputs: PyTorch's or CuPy's on the
            GPU of the model, or any object there with ``__dlpack__``, contiguous; or arrays in the
            host's memory. Shapes and dtypes as in ``metadata.program.inputs``; where the model
            leaves the batch open, of any batch that its programs add up to.
        out
            Tensors on the GPU to write: one, or one for each output in order.
        stream
            Where the work goes: a handle, or a stream of PyTorch or CuPy. Otherwise the one on
            which the inputs' framework works.
        **named
            Inputs by name.

        Returns
        -------
        torch.Tensor or cupy.ndarray or numpy.ndarray or dict
            The output, or the outputs by name where there are several; of the kind of the inputs,
            or ``out``.

        Raises
        ------
        UsageError
            An input is missing, unknown, or has another place, rank, shape or dtype. Or the GPU
            does not have the memory that a call needs.
        """
        specs = self.metadata.program.inputs
        values = ordered([spec.name for spec in specs], args, named)
        handle = tensors.current_stream(values) if stream is None else tensors.stream_of(stream)
        programs, inputs, outputs = self._shapes(values)
        given = None if out is None else list(out) if isinstance(out, list | tuple) else [out]
        results = tensors.like(values, outputs) if given is None else given
        is_recorded = self._device.is_capturing(handle)
        if is_recorded and (results is None or not all(map(tensors.is_on_device, values))):
            raise UsageError(
                "the stream is recorded into a graph, and tensors of the call are in the host's "
                "memory, from which they would be copied only once. Give tensors on the GPU."
            )
        room = self._room(handle)
        read = [
            self._input(number, value, spec, handle, room)
            for number, (value, spec) in enumerate(zip(values, inputs, strict=True))
        ]
        if results is None:
            found: list[Any] = [np.empty(tuple(s.shape), s.dtype) for s in outputs]
            written = self._staged(outputs, len(inputs), room)
        else:
            found, written = results, self._written(results, outputs, handle)
        for part in shares(programs, read, written):
            self._launcher.run(part, handle, room, is_recorded=is_recorded)
        if results is None:
            for array, pointer in zip(found, written, strict=True):
                self._device.download(array, pointer, handle)
        elif not all(map(tensors.is_on_device, values)):
            self._device.synchronize(handle)
        if len(found) == 1:
            return found[0]
        return dict(zip([spec.name for spec in outputs], found, strict=True))

    def inputs(self, *args: Any, **named: Any) -> list[Array]:
        """Arrays for :meth:`run` from arrays that a call takes, checked as there."""
        values = ordered([spec.name for spec in self.metadata.program.inputs], args, named)
        _, specs, _ = self._shapes(values)
        return [tensors.on_host(value, spec) for value, spec in zip(values, specs, strict=True)]

    def run(self, inputs: Sequence[Array]) -> list[Any]:
        """Run on arrays in the order of the model's inputs, and wait for the outputs."""
        found = self(*inputs)
        return list(found.values()) if isinstance(found, dict) else [found]

    def programs(self, inputs: Sequence[Array]) -> list[meta.Program]:
        """Programs that compute a call on ``inputs``, in the order of the batch."""
        return self._shapes(inputs)[0]

    def whole(self, inputs: Sequence[Array]) -> meta.Program:
        """The one program that computes a call on ``inputs``; raises where they are several."""
        return only(self.programs(inputs), self.metadata.programs)

    def resident(self, inputs: Sequence[Array]) -> Resident:
        """A call on ``inputs``, which are copied to the GPU only now; outputs stay there.

        It is of the calling thread, and until the thread's next call.
        """
        programs, specs, outputs = self._shapes(inputs)
        room, stream = self._room(_DEFAULT), _DEFAULT
        read = [
            self._input(number, value, spec, stream, room)
            for number, (value, spec) in enumerate(zip(inputs, specs, strict=True))
        ]
        written = self._staged(outputs, len(read), room)
        parts = shares(programs, read, written)
        nodes = [node for part in parts for node in self._launcher.nodes(part, room)]

        def start() -> None:
            for part in parts:
                self._launcher.run(part, stream, room, is_recorded=False)

        return Resident(self._device, stream, nodes, start)

    def save(self, path: str | Path) -> None:
        """Write the artefact to ``path`` and its metadata beside it.

        Raises
        ------
        OutputError
            It cannot be written there.
        """
        meta.write(Path(path), self._data, self.metadata)

    def _shapes(
        self, values: Sequence[Any]
    ) -> tuple[list[meta.Program], list[meta.Tensor], list[meta.Tensor]]:
        """Programs that compute a call, and what they take and give together."""
        first = self.metadata.program
        shape: Sequence[int] = getattr(values[0], "shape", ()) if first.batch else ()
        if not len(shape):
            return [first], list(first.inputs), list(first.outputs)
        batch = int(shape[0])
        programs = cut(batch, self.metadata.programs)
        inputs, outputs = (
            [sized(spec, batch) for spec in specs] for specs in (first.inputs, first.outputs)
        )
        return programs, inputs, outputs

    def _input(
        self, number: int, value: Any, spec: meta.Tensor, stream: Stream, room: Room
    ) -> Pointer:
        """An input on the GPU: as it is, or copied there."""
        if tensors.is_on_device(value):
            return tensors.aligned(self._taken(value, spec, stream), spec).pointer
        array = tensors.on_host(value, spec)
        pointer = room.stage(number, array.nbytes)
        self._device.upload(pointer, array, stream)
        return pointer

    def _staged(self, outputs: Sequence[meta.Tensor], first: int, room: Room) -> list[Pointer]:
        """Places on the GPU for outputs, of which the first is tensor ``first`` of the call."""
        return [room.stage(number, size_of(spec)) for number, spec in enumerate(outputs, first)]

    def _written(
        self, results: Sequence[Any], outputs: Sequence[meta.Tensor], stream: Stream
    ) -> list[Pointer]:
        """Tensors to write, as they are."""
        if len(results) != len(outputs):
            raise UsageError(f"out has {len(results)} tensors, expected {len(outputs)}.")
        for value, spec in zip(results, outputs, strict=True):
            if not tensors.is_on_device(value):
                raise UsageError(f'out for "{spec.name}" is not on a GPU. Leave out= away.')
        pairs = zip(results, outputs, strict=True)
        return [self._taken(value, spec, stream).pointer for value, spec in pairs]

    def _taken(self, value: Any, spec: meta.Tensor, stream: Stream) -> tensors.OnDevice:
        found = tensors.taken(value, spec.name, self._device.ordinal, stream)
        return tensors.checked(found, spec)

    def _room(self, stream: Stream) -> Room:
        """Memory of the calling thread's calls on a stream."""
        rooms = getattr(self._rooms, "by_stream", None)
        if rooms is None:
            rooms = self._rooms.by_stream = {}
        if stream not in rooms:
            rooms[stream] = Room(self._device)
        return rooms[stream]


def _section(data: Contents, section: str, name: str) -> bytes:
    offset, size = find_section(data, section, name)
    return bytes(data[offset : offset + size])


def _functions(
    program: meta.Program, metadata: meta.Metadata, data: Contents, device: Device, name: str
) -> Mapping[str, Any]:
    """Functions that a program launches, by name: of the machine code, or of the PTX."""
    made, here = capability(metadata.target.gpu), device.capability()
    if made[0] == here[0] and made[1] <= here[1]:
        symbol = cubin_symbol(program.entry)
    elif made <= here:
        symbol = ptx_symbol(program.entry)
    else:
        arch = "sm_{}{}".format(*here)
        raise ArtefactError(
            f"{name}: made for {metadata.target.gpu}, and this GPU is {arch}, an older one. "
            f"Compile the model with --target cuda -arch={arch}."
        )
    module = device.load(_section(data, section_of(symbol), name))
    names = {launch.function for launch in program.launches}
    return {function: device.function(module, function) for function in names}


def load_cuda(path: str | Path, device: int | Device = 0) -> CudaModule:
    """Load an artefact for a GPU.

    Parameters
    ----------
    path
        The shared library.
    device
        Number of the GPU.

    Raises
    ------
    ArtefactError
        The file is missing, damaged, cut off, of another version, for a CPU, or for another GPU.
    UsageError
        There is no such GPU, no driver, or not enough memory.
    """
    data = meta.contents(Path(path))
    metadata = meta.parse(data, str(path))
    if not metadata.target.gpu:
        raise ArtefactError(
            f"{path}: made for a CPU ({metadata.target.cpu}). Load it with gsb_tvm.load, or "
            "compile the model with --target cuda."
        )
    if not fit_together(metadata.programs):
        raise ArtefactError(
            f"{path}: the metadata is damaged (its programs do not fit together). "
            "Compile the model again."
        )
    try:
        opened = CudaDevice(device) if isinstance(device, int) else device
    except UsageError as err:
        raise UsageError(f"{path}: made for {metadata.target.gpu}: {err}") from err
    return CudaModule(metadata, data, opened, str(path))
