"""The driver as sessions use it, on the stand-in for NVIDIA's (tests/libcuda)."""

from pathlib import Path

import numpy as np
import pytest

from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.runtime.cuda.driver import CopyNode, CudaDevice, LaunchNode
from tests.libcuda.process import call, count

SOURCE = """
extern "C" __global__ void __launch_bounds__(32) twice(float* __restrict__ to, float* from) {
  to[blockIdx.x * 32 + threadIdx.x] = 2 * from[blockIdx.x * 32 + threadIdx.x];
}
extern "C" __global__ void __launch_bounds__(32) beyond(float* __restrict__ to) {
  to[threadIdx.x + 40] = 1;
}
"""
N = 64


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """SOURCE for sm_80 as cubin and PTX, and emulated."""
    from gsb_tvm.runtime.cuda.nvrtc import compile_source
    from tests.libcuda.emulations import emulate  # imports TVM, which the processes do without

    folder = tmp_path_factory.mktemp("kernels")
    compiled = compile_source(SOURCE, "sm_80")
    emulate(SOURCE, compiled, folder)
    (folder / "cubin").write_bytes(compiled.cubin)
    (folder / "ptx").write_bytes(compiled.ptx)
    return folder


def numbers(seed=0):
    return np.random.default_rng(seed).standard_normal(N).astype(np.float32)


def opened(folder, image="cubin"):
    """GPU 0, the function ``twice``, and two places for N numbers."""
    gpu = CudaDevice(0)
    module = gpu.load(Path(folder, image).read_bytes())
    return gpu, gpu.function(module, "twice"), gpu.allocate(4 * N), gpu.allocate(4 * N)


def read(gpu, pointer, stream=0):
    found = np.empty(N, np.float32)
    gpu.download(found, pointer, stream)
    return found


def launch(function, *pointers):
    return LaunchNode(function, (N // 32, 1, 1), (32, 1, 1), pointers)


def runs_a_launch_and_a_copy(folder, image):
    gpu, twice, a, b = opened(folder, image)
    x = numbers()
    gpu.upload(a, x, 0)
    gpu.run(launch(twice, b, a), 0)
    gpu.run(CopyNode(a, b, 4 * N), 0)
    np.testing.assert_array_equal(read(gpu, a), 2 * x)
    assert gpu.capability() == (8, 0)


@pytest.mark.parametrize("image", ["cubin", "ptx"])
def test_a_launch_and_a_copy(kernels, image):
    call(runs_a_launch_and_a_copy, kernels, image, kernels=kernels, arch=80)


def runs_a_graph(folder):
    gpu, twice, a, b = opened(folder)
    c = gpu.allocate(4 * N)
    x = numbers()
    gpu.upload(a, x, 0)
    graph = gpu.graph([launch(twice, b, a), CopyNode(a, b, 4 * N)])
    gpu.run_graph(graph, 0)
    gpu.run_graph(graph, 0)
    np.testing.assert_array_equal(read(gpu, a), 4 * x)
    gpu.change(graph, 1, CopyNode(c, b, 4 * N))
    gpu.run_graph(graph, 0)
    gpu.change(graph, 0, launch(twice, b, c))
    gpu.run_graph(graph, 0)
    np.testing.assert_array_equal(read(gpu, a), 4 * x)
    np.testing.assert_array_equal(read(gpu, c), 16 * x)
    assert count("launched") == 4


def test_a_graph_is_run_and_changed(kernels):
    call(runs_a_graph, kernels, kernels=kernels, arch=80)


def finds_memory_of_zeros(folder):
    gpu, *_ = opened(folder)
    assert not read(gpu, gpu.allocate(4 * N)).any()


def test_memory_is_zero(kernels):
    call(finds_memory_of_zeros, kernels, kernels=kernels, arch=80)


def finds_no_memory(folder):
    gpu, *_ = opened(folder)
    with pytest.raises(UsageError, match=r"does not give 4096 bytes .*CUDA_ERROR_OUT_OF_MEMORY"):
        gpu.allocate(4096)
    gpu.allocate(2048)


def test_no_memory(kernels):
    call(finds_no_memory, kernels, kernels=kernels, arch=80, memory=4096)


def finds_no_gpu():
    with pytest.raises(UsageError, match=r"a GPU is needed, .*CUDA_ERROR_NO_DEVICE"):
        CudaDevice(0)


def test_a_driver_without_a_gpu(kernels):
    call(finds_no_gpu, kernels=kernels, gpus=0)


def finds_two_gpus():
    CudaDevice(1)
    with pytest.raises(UsageError, match="there is no GPU 2: this machine has 2, from 0 on"):
        CudaDevice(2)


def test_a_gpu_that_is_not_there(kernels):
    call(finds_two_gpus, kernels=kernels, gpus=2)


def is_refused(folder, image):
    gpu = CudaDevice(0)
    with pytest.raises(ArtefactError, match=r"GPU 0 refuses the artefact's code \(CUDA driver"):
        gpu.load(Path(folder, image).read_bytes())


@pytest.mark.parametrize(("image", "arch"), [("cubin", 90), ("cubin", 75), ("ptx", 75)])
def test_code_for_another_gpu(kernels, image, arch):
    call(is_refused, kernels, image, kernels=kernels, arch=arch)


def writes_beyond(folder):
    gpu = CudaDevice(0)
    beyond = gpu.function(gpu.load(Path(folder, "cubin").read_bytes()), "beyond")
    gpu.run(LaunchNode(beyond, (1, 1, 1), (32, 1, 1), (gpu.allocate(32 * 4),)), 0)
    for _ in range(2):  # a context that is broken stays so
        with pytest.raises(RuntimeError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            gpu.synchronize(0)


def test_a_kernel_that_writes_beyond_its_tensor(kernels):
    call(writes_beyond, kernels, kernels=kernels, arch=80)
