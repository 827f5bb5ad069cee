"""NVIDIA's driver as sessions use it, and the form in which they say what a GPU shall do."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ArtefactError, UsageError

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

    def is_capturing(self, stream: Stream) -> bool:
        """Whether somebody records what goes to the stream into a graph."""

    def synchronize(self, stream: Stream) -> None:
        """Wait for a stream."""


class CudaDevice:
    """A GPU by NVIDIA's driver, through NVIDIA's bindings."""

    def __init__(self, ordinal: int) -> None:
        """Open the GPU of that number.

        Raises
        ------
        UsageError
            There is no driver or no such GPU.
        """
        try:
            from cuda.bindings import driver
        except ImportError as err:
            raise UsageError(
                f"a GPU is needed, and NVIDIA's bindings are not here ({err}). "
                "Install them with pip install 'gsb-tvm[cuda]'."
            ) from err
        self._cuda = driver
        self.ordinal = ordinal
        try:
            self._do(driver.cuInit(0))
            count = self._do(driver.cuDeviceGetCount())
        except RuntimeError as err:
            raise UsageError(f"a GPU is needed, and there is none to use ({err}).") from err
        if not 0 <= ordinal < count:
            raise UsageError(f"there is no GPU {ordinal}: this machine has {count}, from 0 on.")
        self._device = self._do(driver.cuDeviceGet(ordinal))
        self._context = self._do(driver.cuDevicePrimaryCtxRetain(self._device))

    def _do(self, answer: tuple[Any, ...]) -> Any:
        result, *values = answer
        if result != self._cuda.CUresult.CUDA_SUCCESS:
            _, name = self._cuda.cuGetErrorName(result)
            raise RuntimeError(f"CUDA driver: {name.decode() if name else result}")
        return values[0] if values else None

    def _enter(self) -> None:
        """Make this GPU the calling thread's."""
        self._do(self._cuda.cuCtxSetCurrent(self._context))

    def capability(self) -> tuple[int, int]:
        """Compute capability."""
        attribute = self._cuda.CUdevice_attribute
        names = (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
        major, minor = (
            int(self._do(self._cuda.cuDeviceGetAttribute(name, self._device))) for name in names
        )
        return major, minor

    def allocate(self, size: int) -> Pointer:
        """Memory of zeros."""
        self._enter()
        try:
            pointer = self._do(self._cuda.cuMemAlloc(max(size, 1)))
        except RuntimeError as err:
            raise UsageError(
                f"GPU {self.ordinal} does not give {size} bytes of memory ({err})."
            ) from err
        self._do(self._cuda.cuMemsetD8(pointer, 0, max(size, 1)))
        self._do(self._cuda.cuStreamSynchronize(0))
        return int(pointer)

    def free(self, pointer: Pointer) -> None:
        """Give memory back."""
        self._enter()
        self._do(self._cuda.cuMemFree(pointer))

    def upload(self, pointer: Pointer, array: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous array to the GPU."""
        self._enter()
        self._do(self._cuda.cuMemcpyHtoDAsync(pointer, array.ctypes.data, array.nbytes, stream))
        self.synchronize(stream)

    def download(self, array: NDArray[Any], pointer: Pointer, stream: Stream) -> None:
        """Copy from the GPU into a contiguous array."""
        self._enter()
        self._do(self._cuda.cuMemcpyDtoHAsync(array.ctypes.data, pointer, array.nbytes, stream))
        self.synchronize(stream)

    def load(self, image: bytes) -> Any:
        """Load machine code or PTX."""
        self._enter()
        try:
            return self._do(self._cuda.cuModuleLoadData(image))
        except RuntimeError as err:
            raise ArtefactError(f"GPU {self.ordinal} refuses the artefact's code ({err}).") from err

    def function(self, module: Any, name: str) -> Any:
        """A function of loaded code."""
        self._enter()
        return self._do(self._cuda.cuModuleGetFunction(module, name.encode()))

    def run(self, node: Node, stream: Stream) -> None:
        """Do it behind what the stream does before."""
        self._enter()
        if isinstance(node, CopyNode):
            self._do(self._cuda.cuMemcpyDtoDAsync(node.target, node.source, node.size, stream))
            return
        parameters = _parameters(node)
        self._do(
            self._cuda.cuLaunchKernel(
                node.function, *node.grid, *node.block, 0, stream, parameters, 0
            )
        )

    def graph(self, nodes: Sequence[Node]) -> Any:
        """All of them, one behind the other."""
        self._enter()
        graph = self._do(self._cuda.cuGraphCreate(0))
        handles: list[Any] = []
        for node in nodes:
            before = handles[-1:] or None
            handles.append(self._add(graph, before, node))
        executable = self._do(self._cuda.cuGraphInstantiate(graph, 0))
        return _Graph(graph, executable, handles)

    def _add(self, graph: Any, before: list[Any] | None, node: Node) -> Any:
        count = len(before or ())
        if isinstance(node, CopyNode):
            copy = self._copy(node)
            return self._do(
                self._cuda.cuGraphAddMemcpyNode(graph, before, count, copy, self._context)
            )
        return self._do(self._cuda.cuGraphAddKernelNode(graph, before, count, self._launch(node)))

    def change(self, graph: Any, number: int, node: Node) -> None:
        """Let a graph do something else in one place."""
        self._enter()
        handle = graph.handles[number]
        if isinstance(node, CopyNode):
            copy = self._copy(node)
            self._do(
                self._cuda.cuGraphExecMemcpyNodeSetParams(
                    graph.executable, handle, copy, self._context
                )
            )
            return
        launch = self._launch(node)
        self._do(self._cuda.cuGraphExecKernelNodeSetParams(graph.executable, handle, launch))

    def run_graph(self, graph: Any, stream: Stream) -> None:
        """Do it all behind what the stream does before."""
        self._enter()
        self._do(self._cuda.cuGraphLaunch(graph.executable, stream))

    def is_capturing(self, stream: Stream) -> bool:
        """Whether somebody records what goes to the stream into a graph."""
        self._enter()
        status = self._do(self._cuda.cuStreamIsCapturing(stream))
        none = self._cuda.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
        return bool(status != none)

    def synchronize(self, stream: Stream) -> None:
        """Wait for a stream."""
        self._enter()
        self._do(self._cuda.cuStreamSynchronize(stream))

    def _launch(self, node: LaunchNode) -> Any:
        parameters = self._cuda.CUDA_KERNEL_NODE_PARAMS()
        parameters.func = node.function
        parameters.gridDimX, parameters.gridDimY, parameters.gridDimZ = node.grid
        parameters.blockDimX, parameters.blockDimY, parameters.blockDimZ = node.block
        parameters.kernelParams = _parameters(node)
        return parameters

    def _copy(self, node: CopyNode) -> Any:
        copy = self._cuda.CUDA_MEMCPY3D()
        copy.srcMemoryType = copy.dstMemoryType = self._cuda.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.dstDevice = node.source, node.target
        copy.WidthInBytes, copy.Height, copy.Depth = node.size, 1, 1
        return copy


@dataclass(frozen=True)
class _Graph:
    """A graph as it was made, as it is executed, and its nodes."""

    graph: Any
    executable: Any
    handles: list[Any]


def _parameters(node: LaunchNode) -> tuple[tuple[Pointer, ...], tuple[Any, ...]]:
    """Pointers in the form that NVIDIA's bindings take."""
    return node.pointers, (ctypes.c_void_p,) * len(node.pointers)
