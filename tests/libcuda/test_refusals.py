"""What the stand-in for NVIDIA's driver refuses, by NVIDIA's bindings, as the driver would."""

import ctypes
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.libcuda.process import call

SOURCE = """
extern "C" __global__ void __launch_bounds__(32) add(float* __restrict__ to, float* from) {
  to[threadIdx.x] += from[threadIdx.x];
}
"""
SIZE = 4 * 32


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """SOURCE for sm_90, emulated."""
    from gsb_tvm.runtime.cuda.nvrtc import compile_source
    from tests.libcuda.emulations import emulate  # imports TVM, which the processes do without

    folder = tmp_path_factory.mktemp("kernels")
    compiled = compile_source(SOURCE, "sm_90")
    emulate(SOURCE, compiled, folder)
    (folder / "cubin").write_bytes(compiled.cubin)
    return folder


class Gpu:
    """The driver with a context: :meth:`do` gives values, :meth:`refuses` wants an error."""

    def __init__(self, folder: str) -> None:
        from cuda.bindings import driver

        self.api = driver
        self.do(driver.cuInit(0))
        self.context = self.do(driver.cuDevicePrimaryCtxRetain(0))
        self.do(driver.cuCtxSetCurrent(self.context))
        self.module = self.do(driver.cuModuleLoadData(Path(folder, "cubin").read_bytes()))
        self.add = self.do(driver.cuModuleGetFunction(self.module, b"add"))
        self.a, self.b = (int(self.do(driver.cuMemAlloc(SIZE))) for _ in range(2))
        for pointer in (self.a, self.b):
            self.do(driver.cuMemsetD8(pointer, 0, SIZE))

    def do(self, answer: tuple[Any, ...]) -> Any:
        result, *values = answer
        assert result == self.api.CUresult.CUDA_SUCCESS, result
        return values[0] if values else None

    def refuses(self, answer: tuple[Any, ...], name: str) -> None:
        assert answer[0].name == f"CUDA_ERROR_{name}"

    def launch(self, *pointers: int, block: int = 32, stream: Any = 0) -> tuple[Any, ...]:
        parameters = (pointers, (ctypes.c_void_p,) * len(pointers))
        return self.api.cuLaunchKernel(self.add, 1, 1, 1, block, 1, 1, 0, stream, parameters, 0)

    def node(self, *pointers: int) -> Any:
        made = self.api.CUDA_KERNEL_NODE_PARAMS()
        made.func, made.kernelParams = self.add, (pointers, (ctypes.c_void_p,) * len(pointers))
        made.gridDimX = made.gridDimY = made.gridDimZ = made.blockDimY = made.blockDimZ = 1
        made.blockDimX = 32
        return made

    def copy(self, target: int, source: int, size: int = SIZE) -> Any:
        made = self.api.CUDA_MEMCPY3D()
        made.srcMemoryType = made.dstMemoryType = self.api.CUmemorytype.CU_MEMORYTYPE_DEVICE
        made.srcDevice, made.dstDevice = source, target
        made.WidthInBytes, made.Height, made.Depth = size, 1, 1
        return made


def memory(folder):
    gpu = Gpu(folder)
    api, host = gpu.api, np.zeros(64, np.float32)
    gpu.refuses(api.cuMemAlloc(0), "INVALID_VALUE")
    gpu.refuses(api.cuMemcpyHtoD(gpu.a, host.ctypes.data, SIZE + 1), "INVALID_VALUE")
    gpu.refuses(api.cuMemcpyDtoHAsync(host.ctypes.data, gpu.a + 4, SIZE, 0), "INVALID_VALUE")
    gpu.refuses(api.cuMemcpyDtoD(host.ctypes.data, gpu.a, SIZE), "INVALID_VALUE")
    gpu.refuses(api.cuMemsetD8(gpu.a, 0, SIZE + 1), "INVALID_VALUE")
    gpu.refuses(api.cuMemFree(gpu.a + 4), "INVALID_VALUE")
    gpu.do(api.cuMemFree(gpu.a))
    gpu.refuses(api.cuMemFree(gpu.a), "INVALID_VALUE")
    gpu.do(gpu.launch(gpu.b, gpu.a))  # a driver does not look at pointers either
    gpu.refuses(api.cuCtxSynchronize(), "ILLEGAL_ADDRESS")
    gpu.refuses(api.cuMemAlloc(4), "ILLEGAL_ADDRESS")


def contexts(folder):
    gpu = Gpu(folder)
    api = gpu.api
    other = gpu.do(api.cuDevicePrimaryCtxRetain(1))
    stream = gpu.do(api.cuStreamCreate(0))
    gpu.do(api.cuCtxSetCurrent(other))
    gpu.refuses(gpu.launch(gpu.a, gpu.b), "INVALID_HANDLE")
    gpu.refuses(api.cuStreamSynchronize(stream), "INVALID_HANDLE")
    gpu.do(api.cuCtxSetCurrent(api.CUcontext(0)))
    gpu.refuses(api.cuMemAlloc(4), "INVALID_CONTEXT")
    gpu.do(api.cuDevicePrimaryCtxRelease(1))
    gpu.refuses(api.cuCtxSetCurrent(other), "INVALID_CONTEXT")
    gpu.refuses(api.cuDevicePrimaryCtxRelease(1), "INVALID_CONTEXT")


def launches(folder):
    gpu = Gpu(folder)
    gpu.refuses(gpu.launch(gpu.a, gpu.b, block=1025), "INVALID_VALUE")
    gpu.refuses(gpu.launch(gpu.a, gpu.b, block=0), "INVALID_VALUE")
    stream = gpu.do(gpu.api.cuStreamCreate(0))
    gpu.do(gpu.api.cuStreamDestroy(stream))
    gpu.refuses(gpu.launch(gpu.a, gpu.b, stream=stream), "INVALID_HANDLE")
    gpu.refuses(gpu.api.cuModuleGetFunction(gpu.module, b"other"), "NOT_FOUND")
    gpu.do(gpu.api.cuModuleUnload(gpu.module))
    gpu.refuses(gpu.launch(gpu.a, gpu.b), "INVALID_HANDLE")


def graphs(folder):
    gpu = Gpu(folder)
    api = gpu.api
    graph, other = (gpu.do(api.cuGraphCreate(0)) for _ in range(2))
    node = gpu.do(api.cuGraphAddKernelNode(graph, None, 0, gpu.node(gpu.a, gpu.b)))
    apart = gpu.do(api.cuGraphAddKernelNode(other, None, 0, gpu.node(gpu.a, gpu.b)))
    copy = gpu.copy(gpu.a, gpu.b)
    gpu.refuses(api.cuGraphAddMemcpyNode(graph, [apart], 1, copy, gpu.context), "INVALID_VALUE")
    for wrong in (gpu.copy(gpu.a, gpu.b, 0), gpu.copy(gpu.a, gpu.b, SIZE + 1)):
        gpu.refuses(api.cuGraphAddMemcpyNode(graph, [node], 1, wrong, gpu.context), "INVALID_VALUE")
    copied = gpu.do(api.cuGraphAddMemcpyNode(graph, [node], 1, copy, gpu.context))
    executable = gpu.do(api.cuGraphInstantiate(graph, 0))
    change = api.cuGraphExecKernelNodeSetParams
    gpu.refuses(change(executable, apart, gpu.node(gpu.a, gpu.b)), "INVALID_VALUE")
    gpu.refuses(change(executable, copied, gpu.node(gpu.a, gpu.b)), "INVALID_VALUE")
    gpu.do(api.cuGraphDestroy(graph))
    gpu.refuses(change(executable, node, gpu.node(gpu.a, gpu.b)), "INVALID_HANDLE")
    gpu.do(api.cuGraphLaunch(executable, 0))
    gpu.do(api.cuGraphExecDestroy(executable))
    gpu.refuses(api.cuGraphLaunch(executable, 0), "INVALID_HANDLE")


def recording(folder):
    gpu = Gpu(folder)
    api = gpu.api
    mode = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
    for forbidden, name in (
        (lambda _stream: api.cuMemAlloc(4), "STREAM_CAPTURE_UNSUPPORTED"),
        (lambda _stream: api.cuCtxSynchronize(), "STREAM_CAPTURE_UNSUPPORTED"),
        (api.cuStreamSynchronize, "STREAM_CAPTURE_UNSUPPORTED"),
        (api.cuStreamQuery, "STREAM_CAPTURE_UNSUPPORTED"),
        (lambda _stream: gpu.launch(gpu.a, gpu.b), "STREAM_CAPTURE_IMPLICIT"),
    ):
        stream = gpu.do(api.cuStreamCreate(0))
        gpu.do(api.cuStreamBeginCapture(stream, mode))
        gpu.do(gpu.launch(gpu.a, gpu.b, stream=stream))
        gpu.refuses(forbidden(stream), name)
        gpu.refuses(gpu.launch(gpu.a, gpu.b, stream=stream), "STREAM_CAPTURE_INVALIDATED")
        gpu.refuses(api.cuStreamEndCapture(stream), "STREAM_CAPTURE_INVALIDATED")
        gpu.do(gpu.launch(gpu.a, gpu.b, stream=stream))


def waiting(folder):
    """Streams: only what is waited for has happened; the default stream waits for blocking ones."""
    gpu = Gpu(folder)
    api = gpu.api
    apart, blocking = (gpu.do(api.cuStreamCreate(flags)) for flags in (1, 0))
    first, last = (gpu.do(api.cuEventCreate(0)) for _ in range(2))
    found = np.zeros(32, np.float32)

    def read(stream: Any) -> float:
        gpu.do(api.cuMemcpyDtoHAsync(found.ctypes.data, gpu.a, SIZE, stream))
        gpu.do(api.cuStreamSynchronize(stream))
        return float(found[0])

    gpu.do(api.cuMemcpyHtoD(gpu.b, np.ones(32, np.float32).ctypes.data, SIZE))
    gpu.do(gpu.launch(gpu.a, gpu.b, stream=blocking))
    assert read(apart) == 0
    assert read(0) == 1
    gpu.do(api.cuEventRecord(first, blocking))
    gpu.do(gpu.launch(gpu.a, gpu.b, stream=blocking))
    gpu.do(api.cuEventRecord(last, blocking))
    gpu.refuses(api.cuEventElapsedTime(first, last), "NOT_READY")
    gpu.do(api.cuStreamWaitEvent(apart, last, 0))
    assert read(apart) == 2
    assert gpu.do(api.cuEventElapsedTime(first, last)) > 0


@pytest.mark.parametrize(
    "kind", [memory, contexts, launches, graphs, recording, waiting], ids=lambda kind: kind.__name__
)
def test_what_a_driver_does(kernels, kind):
    call(kind, kernels, kernels=kernels, gpus=2)


def touches(folder):
    ctypes.memset(Gpu(folder).a, 0, 1)


def test_the_host_does_not_touch_the_gpus_memory(kernels):
    with pytest.raises(AssertionError, match=f"exit code -{signal.SIGSEGV.value}"):
        call(touches, kernels, kernels=kernels)
