"""A GPU as sessions use it, and the form in which they say what it shall do."""

import ctypes
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ArtefactError, GpuError, UsageError
from gsb_tvm.runtime.cuda.api import Driver
from gsb_tvm.runtime.cuda.handles import Function, Graph, Owned

Pointer = int
Stream = int
"""Handle of a stream as the driver knows it; 0 is the default one."""


@dataclass(frozen=True)
class LaunchNode:
    """One launch: a loaded function, blocks and threads (x, y, z), its pointers."""

    function: Any
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    pointers: tuple[Pointer, ...]


@dataclass(frozen=True)
class CopyNode:
    """Bytes from one place of the GPU's memory to another."""

    target: Pointer
    source: Pointer
    size: int


Node = LaunchNode | CopyNode


class Device(Protocol):
    """A GPU. Nothing but :meth:`synchronize`, :meth:`upload` and :meth:`download` waits for it."""

    ordinal: int

    def capability(self) -> tuple[int, int]:
        """Compute capability."""

    def name(self) -> str:
        """What NVIDIA calls it, as "NVIDIA H200"."""

    def multiprocessors(self) -> int:
        """How many it has."""

    def allocate(self, size: int) -> Pointer:
        """Memory of zeros; raises :class:`UsageError` where there is none."""

    def free(self, pointer: Pointer) -> None:
        """Give memory back."""

    def upload(self, pointer: Pointer, array: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous array to the GPU."""

    def download(self, array: NDArray[Any], pointer: Pointer, stream: Stream) -> None:
        """Copy from the GPU into a contiguous array, behind what the stream does before."""

    def load(self, image: bytes) -> Any:
        """Load machine code or PTX."""

    def function(self, module: Any, name: str) -> Any:
        """A function of loaded code."""

    def run(self, node: Node, stream: Stream) -> None:
        """Do it behind what the stream does before."""

    def graph(self, nodes: Sequence[Node]) -> Any:
        """All of them, one behind the other, to be run as one."""

    def change(self, graph: Any, number: int, node: Node) -> None:
        """Let a graph do something else in one place, with the same function."""

    def run_graph(self, graph: Any, stream: Stream) -> None:
        """Do it all behind what the stream does before."""

    def seconds(self, graph: Any, stream: Stream) -> float:
        """Do it all twice, and return what the second time took by the GPU's clock.

        The first keeps the GPU busy while the host hands it the second: no wait for the host is in
        the time.
        """

    def is_capturing(self, stream: Stream) -> bool:
        """Whether somebody records what goes to the stream into a graph."""

    def synchronize(self, stream: Stream) -> None:
        """Wait for a stream."""


class CudaDevice:
    """A GPU by NVIDIA's driver; everything it made is given back when nobody has it any more.

    The calling thread's context stays what it was. A stream that somebody records, in any thread,
    is not disturbed by what is made or given back meanwhile.
    """

    def __init__(self, ordinal: int) -> None:
        """Open the GPU of that number.

        Raises
        ------
        UsageError
            There is no driver or no such GPU.
        """
        self._driver = Driver()
        count = self._driver.count()
        if not 0 <= ordinal < count:
            raise UsageError(f"there is no GPU {ordinal}: this machine has {count}, from 0 on.")
        self.ordinal = ordinal
        api, self._do = self._driver.api, self._driver.do
        self._device = self._do(api.cuDeviceGet(ordinal))
        self._context = self._do(api.cuDevicePrimaryCtxRetain(self._device))
        with self._here():
            # Not the default stream, which waits for others.
            flags = api.CUstream_flags.CU_STREAM_NON_BLOCKING
            self._side = self._do(api.cuStreamCreate(flags))
        opened = (api, self._device, self._context, self._side)
        weakref.finalize(self, _close, *opened).atexit = False

    @contextmanager
    def _here(self) -> Iterator[Any]:
        """The calling thread in this GPU's context; the functions of the driver."""
        api = self._driver.api
        self._do(api.cuCtxPushCurrent(self._context))
        try:
            yield api
        finally:
            api.cuCtxPopCurrent()

    @contextmanager
    def _aside(self) -> Iterator[Any]:
        """The same for what would break the recording of a stream, of which it is no part."""
        with self._here() as api:
            relaxed = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            before = self._do(api.cuThreadExchangeStreamCaptureMode(relaxed))
            try:
                yield api
            finally:
                api.cuThreadExchangeStreamCaptureMode(before)

    def capability(self) -> tuple[int, int]:
        """Compute capability."""
        return self._driver.capability(self.ordinal)

    def name(self) -> str:
        """What NVIDIA calls it."""
        return self._driver.name(self.ordinal)

    def multiprocessors(self) -> int:
        """How many it has."""
        api = self._driver.api
        count = api.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT
        return int(self._do(api.cuDeviceGetAttribute(count, self._device)))

    def allocate(self, size: int) -> Pointer:
        """Memory of zeros."""
        size = max(size, 1)
        with self._aside() as api:
            answer = api.cuMemAlloc(size)
            if answer[0] == api.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
                raise UsageError(
                    f"GPU {self.ordinal} does not give {size} bytes of memory: "
                    "CUDA_ERROR_OUT_OF_MEMORY. Run a smaller batch, or end what else uses the GPU."
                )
            pointer = int(self._do(answer))
            self._do(api.cuMemsetD8Async(pointer, 0, size, self._side))
            self._do(api.cuStreamSynchronize(self._side))
        return pointer

    def free(self, pointer: Pointer) -> None:
        """Give memory back, when all that uses it is done."""
        self._end(self._driver.api.cuMemFree, pointer)

    def _owned(self, handle: Any, end: Callable[[Any], Any]) -> Owned:
        return Owned(handle, partial(self._end, end))

    def _end(self, end: Callable[[Any], Any], handle: Any) -> None:
        # A GPU that has failed refuses; whoever gave it the work is told so.
        with suppress(GpuError), self._aside():
            self._do(end(handle))

    def upload(self, pointer: Pointer, array: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous array to the GPU."""
        with self._here() as api:
            self._do(api.cuMemcpyHtoDAsync(pointer, array.ctypes.data, array.nbytes, stream))
            self._do(api.cuStreamSynchronize(stream))

    def download(self, array: NDArray[Any], pointer: Pointer, stream: Stream) -> None:
        """Copy from the GPU into a contiguous array."""
        with self._here() as api:
            self._do(api.cuMemcpyDtoHAsync(array.ctypes.data, pointer, array.nbytes, stream))
            self._do(api.cuStreamSynchronize(stream))

    def load(self, image: bytes) -> Any:
        """Load machine code or PTX."""
        with self._aside() as api:
            try:
                module = self._do(api.cuModuleLoadData(image))
            except GpuError as err:
                raise ArtefactError(
                    f"GPU {self.ordinal} refuses the artefact's code ({err}). "
                    "Compile the model for this GPU."
                ) from err
            return self._owned(module, api.cuModuleUnload)

    def function(self, module: Any, name: str) -> Any:
        """A function of loaded code, which stays loaded as long as the function is there."""
        with self._here() as api:
            return Function(self._do(api.cuModuleGetFunction(module.handle, name.encode())), module)

    def run(self, node: Node, stream: Stream) -> None:
        """Do it behind what the stream does before."""
        with self._here() as api:
            if isinstance(node, CopyNode):
                answer = api.cuMemcpyDtoDAsync(node.target, node.source, node.size, stream)
            else:
                answer = api.cuLaunchKernel(
                    node.function.handle, *node.grid, *node.block, 0, stream, _parameters(node), 0
                )
            self._do(answer)

    def graph(self, nodes: Sequence[Node]) -> Any:
        """All of them, one behind the other."""
        with self._aside() as api:
            graph = self._owned(self._do(api.cuGraphCreate(0)), api.cuGraphDestroy)
            handles: list[Any] = []
            for node in nodes:
                handles.append(self._add(graph.handle, handles[-1:] or None, node))
            executable = self._do(api.cuGraphInstantiate(graph.handle, 0))
            return Graph(graph, self._owned(executable, api.cuGraphExecDestroy), handles)

    def _add(self, graph: Any, before: list[Any] | None, node: Node) -> Any:
        api, count = self._driver.api, len(before or ())
        if isinstance(node, CopyNode):
            copy = self._copy(node)
            return self._do(api.cuGraphAddMemcpyNode(graph, before, count, copy, self._context))
        return self._do(api.cuGraphAddKernelNode(graph, before, count, self._launch(node)))

    def change(self, graph: Any, number: int, node: Node) -> None:
        """Let a graph do something else in one place."""
        executable, handle = graph.executable.handle, graph.handles[number]
        with self._here() as api:
            if isinstance(node, CopyNode):
                copy = self._copy(node)
                answer = api.cuGraphExecMemcpyNodeSetParams(executable, handle, copy, self._context)
            else:
                answer = api.cuGraphExecKernelNodeSetParams(executable, handle, self._launch(node))
            self._do(answer)

    def run_graph(self, graph: Any, stream: Stream) -> None:
        """Do it all behind what the stream does before."""
        with self._here() as api:
            self._do(api.cuGraphLaunch(graph.executable.handle, stream))

    def seconds(self, graph: Any, stream: Stream) -> float:
        """What a graph takes, by the GPU's clock."""
        with self._here() as api:
            events = [
                self._owned(self._do(api.cuEventCreate(0)), api.cuEventDestroy) for _ in range(2)
            ]
            start, end = (event.handle for event in events)
            self.run_graph(graph, stream)
            self._do(api.cuEventRecord(start, stream))
            self.run_graph(graph, stream)
            self._do(api.cuEventRecord(end, stream))
            self._do(api.cuEventSynchronize(end))
            return float(self._do(api.cuEventElapsedTime(start, end))) * 1e-3

    def is_capturing(self, stream: Stream) -> bool:
        """Whether somebody records what goes to the stream into a graph."""
        with self._here() as api:
            status = self._do(api.cuStreamIsCapturing(stream))
        return bool(status != api.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE)

    def synchronize(self, stream: Stream) -> None:
        """Wait for a stream."""
        with self._here() as api:
            self._do(api.cuStreamSynchronize(stream))

    def _launch(self, node: LaunchNode) -> Any:
        parameters = self._driver.api.CUDA_KERNEL_NODE_PARAMS()
        parameters.func = node.function.handle
        parameters.gridDimX, parameters.gridDimY, parameters.gridDimZ = node.grid
        parameters.blockDimX, parameters.blockDimY, parameters.blockDimZ = node.block
        parameters.kernelParams = _parameters(node)
        return parameters

    def _copy(self, node: CopyNode) -> Any:
        api = self._driver.api
        copy = api.CUDA_MEMCPY3D()
        copy.srcMemoryType = copy.dstMemoryType = api.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.dstDevice = node.source, node.target
        copy.WidthInBytes, copy.Height, copy.Depth = node.size, 1, 1
        return copy


def _close(api: Any, device: Any, context: Any, stream: Any) -> None:
    api.cuCtxPushCurrent(context)
    api.cuStreamDestroy(stream)
    api.cuCtxPopCurrent()
    api.cuDevicePrimaryCtxRelease(device)


def _parameters(node: LaunchNode) -> tuple[tuple[Pointer, ...], tuple[Any, ...]]:
    """Pointers in the form that NVIDIA's bindings take."""
    return node.pointers, (ctypes.c_void_p,) * len(node.pointers)
