"""Loading an artefact for a GPU and calling it."""

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.arguments import ordered
from gsb_tvm.runtime.batches import cut, fit_together, sized
from gsb_tvm.runtime.cuda import tensors
from gsb_tvm.runtime.cuda.driver import (
    CopyNode,
    CudaDevice,
    Device,
    LaunchNode,
    Node,
    Pointer,
    Stream,
)
from gsb_tvm.runtime.cuda.symbols import cubin_symbol, ptx_symbol, section_of
from gsb_tvm.runtime.sections import Contents, find_section
from gsb_tvm.targets.gpus import capability


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
        self._functions = {
            program.entry: _functions(program, metadata, data, device, name)
            for program in metadata.programs
        }
        weights = np.frombuffer(_section(data, meta.WEIGHTS_SECTION, name), np.uint8)
        self._weights = device.allocate(weights.nbytes)
        weakref.finalize(self, device.free, self._weights).atexit = False
        device.upload(self._weights, weights, 0)
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
        room = self._room(handle)
        with _Borrowed(self._device) as borrowed:
            read = [
                self._input(value, spec, handle, borrowed)
                for value, spec in zip(values, inputs, strict=True)
            ]
            if results is None:
                found: list[Any] = [np.empty(tuple(s.shape), s.dtype) for s in outputs]
                pointers = [borrowed.take(array.nbytes) for array in found]
            else:
                found, written = results, self._written(results, outputs, handle)
                pointers = [tensor.pointer for tensor in written]
            self._run(programs, [tensor.pointer for tensor in read], pointers, handle, room)
            if results is None:
                for array, pointer in zip(found, pointers, strict=True):
                    self._device.download(array, pointer, handle)
            if borrowed.pointers:
                self._device.synchronize(handle)
        if len(found) == 1:
            return found[0]
        return dict(zip([spec.name for spec in outputs], found, strict=True))

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
        self, value: Any, spec: meta.Tensor, stream: Stream, borrowed: "_Borrowed"
    ) -> tensors.OnDevice:
        """An input on the GPU: as it is, or copied there."""
        if tensors.is_on_device(value):
            return self._taken(value, spec, stream)
        array = tensors.on_host(value, spec)
        pointer = borrowed.take(array.nbytes)
        self._device.upload(pointer, array, stream)
        return tensors.OnDevice(pointer, array.shape, spec.dtype, array)

    def _written(
        self, results: Sequence[Any], outputs: Sequence[meta.Tensor], stream: Stream
    ) -> list[tensors.OnDevice]:
        """Tensors to write, as they are."""
        if len(results) != len(outputs):
            raise UsageError(f"out has {len(results)} tensors, expected {len(outputs)}.")
        for value, spec in zip(results, outputs, strict=True):
            if not tensors.is_on_device(value):
                raise UsageError(f'out for "{spec.name}" is not on a GPU. Leave out= away.')
        pairs = zip(results, outputs, strict=True)
        return [self._taken(value, spec, stream) for value, spec in pairs]

    def _taken(self, value: Any, spec: meta.Tensor, stream: Stream) -> tensors.OnDevice:
        found = tensors.taken(value, spec.name, self._device.ordinal, stream)
        return tensors.checked(found, spec)

    def _run(
        self,
        programs: Sequence[meta.Program],
        inputs: Sequence[Pointer],
        outputs: Sequence[Pointer],
        stream: Stream,
        room: "_Room",
    ) -> None:
        at = 0
        for program in programs:
            read, written = (
                [
                    pointer + at * (_size(spec) // max(program.batch, 1))
                    for pointer, spec in zip(pointers, specs, strict=True)
                ]
                for pointers, specs in ((inputs, program.inputs), (outputs, program.outputs))
            )
            self._run_program(program, read, written, stream, room)
            at += program.batch

    def _run_program(
        self,
        program: meta.Program,
        inputs: Sequence[Pointer],
        outputs: Sequence[Pointer],
        stream: Stream,
        room: "_Room",
    ) -> None:
        """All launches as one graph; one by one where somebody else records them."""

        def node(number: int) -> Node:
            return self._node(program, number, inputs, outputs, room)

        if self._device.is_capturing(stream):
            for number in range(_length(program)):
                self._device.run(node(number), stream)
            return
        known = room.graphs.get(program.entry)
        if known is None:
            nodes = [node(number) for number in range(_length(program))]
            known = _Recorded(self._device.graph(nodes), nodes, _moving(program))
            room.graphs[program.entry] = known
        for number in known.moving:
            if (wanted := node(number)) != known.nodes[number]:
                self._device.change(known.graph, number, wanted)
                known.nodes[number] = wanted
        self._device.run_graph(known.graph, stream)

    def _node(
        self,
        program: meta.Program,
        number: int,
        inputs: Sequence[Pointer],
        outputs: Sequence[Pointer],
        room: "_Room",
    ) -> Node:
        """A launch of a program by its number, or, behind the last, the copy of an output."""

        def place(where: meta.Place) -> Pointer:
            if where.where == "input":
                return inputs[where.at]
            return (room.memory if where.where == "memory" else self._weights) + where.at

        if number >= len(program.launches):
            output = _copied(program)[number - len(program.launches)]
            source = place(program.results[output])
            return CopyNode(outputs[output], source, _size(program.outputs[output]))
        launch = program.launches[number]
        function = self._functions[program.entry][launch.function]
        return LaunchNode(function, launch.grid, launch.block, tuple(map(place, launch.arguments)))

    def _room(self, stream: Stream) -> "_Room":
        """Memory of the calling thread's calls on a stream."""
        rooms = getattr(self._rooms, "by_stream", None)
        if rooms is None:
            rooms = self._rooms.by_stream = {}
        if stream not in rooms:
            size = max(program.memory.fixed_bytes for program in self.metadata.programs)
            rooms[stream] = _Room(self._device.allocate(size), self._device.free)
        return rooms[stream]


@dataclass
class _Recorded:
    """A program's graph, what its nodes do now, and which depend on a call's tensors."""

    graph: Any
    nodes: list[Node]
    moving: list[int]


@dataclass
class _Room:
    """What calls of one thread on one stream write; kept from call to call."""

    memory: Pointer
    free: Callable[[Pointer], None]
    graphs: dict[str, _Recorded] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weakref.finalize(self, self.free, self.memory).atexit = False


class _Borrowed:
    """Memory of the GPU for the length of a call."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.pointers: list[Pointer] = []

    def __enter__(self) -> "_Borrowed":
        return self

    def __exit__(self, *_: object) -> None:
        for pointer in self.pointers:
            self._device.free(pointer)

    def take(self, size: int) -> Pointer:
        """``size`` bytes."""
        self.pointers.append(self._device.allocate(size))
        return self.pointers[-1]


def _length(program: meta.Program) -> int:
    """Nodes of a program: launches, then copies."""
    return len(program.launches) + len(_copied(program))


def _copied(program: meta.Program) -> list[int]:
    """Outputs of a program that are not empty."""
    return [number for number, spec in enumerate(program.outputs) if _size(spec)]


def _moving(program: meta.Program) -> list[int]:
    """Nodes that touch tensors of a call."""
    reading = [
        number
        for number, launch in enumerate(program.launches)
        if any(argument.where == "input" for argument in launch.arguments)
    ]
    return [*reading, *range(len(program.launches), _length(program))]


def _size(spec: meta.Tensor) -> int:
    """Bytes of a tensor."""
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize


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
    opened = CudaDevice(device) if isinstance(device, int) else device
    return CudaModule(metadata, data, opened, str(path))
