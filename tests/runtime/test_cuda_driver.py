"""The driver as sessions use it, on the stand-in for NVIDIA's (tests/libcuda)."""

from pathlib import Path

import numpy as np
import pytest

from gsb_tvm.dialect.errors import ArtefactError, GpuError, UsageError
from gsb_tvm.runtime.cuda.driver import CopyNode, CudaDevice, LaunchNode
from tests.libcuda.build import without_driver
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


def times_a_graph(folder):
    gpu, twice, a, b = opened(folder)
    x = numbers()
    gpu.upload(a, x, 0)
    graph = gpu.graph([launch(twice, b, a), CopyNode(a, b, 4 * N)])
    assert gpu.seconds(graph, 0) > 0
    np.testing.assert_array_equal(read(gpu, a), 4 * x)
    assert count("events") == 0


def test_a_graph_is_timed_in_the_second_of_two_runs(kernels):
    call(times_a_graph, kernels, kernels=kernels, arch=80)


def says_what_it_is():
    gpu = CudaDevice(0)
    assert (gpu.name(), gpu.multiprocessors()) == ("Stand-in GPU", 132)


def test_a_gpu_has_a_name(kernels):
    call(says_what_it_is, kernels=kernels)


def finds_memory_of_zeros(folder):
    gpu, *_ = opened(folder)
    assert not read(gpu, gpu.allocate(4 * N)).any()


def test_memory_is_zero(kernels):
    call(finds_memory_of_zeros, kernels, kernels=kernels, arch=80)


def finds_no_memory(folder):
    gpu, *_ = opened(folder)
    with pytest.raises(UsageError, match="GPU 0 does not give 4096 bytes of memory"):
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


def refuses_code(folder, image):
    gpu = CudaDevice(0)
    with pytest.raises(
        ArtefactError, match=r"GPU 0 refuses the artefact's code \(CUDA driver: CUDA_"
    ):
        gpu.load(Path(folder, image).read_bytes())


@pytest.mark.parametrize(("image", "arch"), [("cubin", 90), ("cubin", 75), ("ptx", 75)])
def test_code_for_another_gpu(kernels, image, arch):
    call(refuses_code, kernels, image, kernels=kernels, arch=arch)


def writes_beyond(folder):
    gpu = CudaDevice(0)
    beyond = gpu.function(gpu.load(Path(folder, "cubin").read_bytes()), "beyond")
    gpu.run(LaunchNode(beyond, (1, 1, 1), (32, 1, 1), (gpu.allocate(32 * 4),)), 0)
    for _ in range(2):  # a context that is broken stays so
        with pytest.raises(GpuError, match="CUDA driver: CUDA_ERROR_ILLEGAL_ADDRESS, an illegal"):
            gpu.synchronize(0)
    with pytest.raises(GpuError, match="ILLEGAL_ADDRESS"):
        gpu.allocate(4)


def test_a_kernel_that_writes_beyond_its_tensor(kernels):
    call(writes_beyond, kernels, kernels=kernels, arch=80)


def gives_all_back(folder):
    gpu, twice, a, b = opened(folder)
    graph = gpu.graph([launch(twice, b, a), CopyNode(a, b, 4 * N)])
    gpu.run_graph(graph, 0)
    gpu.free(a)
    gpu.free(b)
    known = ("allocations", "modules", "graphs", "executables", "streams", "contexts")
    assert [count(each) for each in known] == [0, 1, 1, 1, 1, 1]
    del graph
    assert [count(each) for each in known] == [0, 1, 0, 0, 1, 1]
    del twice
    assert [count(each) for each in known] == [0, 0, 0, 0, 1, 1]
    del gpu
    assert [count(each) for each in known] == [0, 0, 0, 0, 0, 0]
    assert CudaDevice(0).capability() == (8, 0)


def test_all_is_given_back(kernels):
    call(gives_all_back, kernels, kernels=kernels, arch=80)


def leaves_the_context(folder):
    from cuda.bindings import driver

    gpu, twice, a, b = opened(folder)
    _, other = driver.cuDevicePrimaryCtxRetain(1)
    driver.cuCtxSetCurrent(other)
    gpu.run_graph(gpu.graph([launch(twice, b, a)]), 0)
    read(gpu, b)
    assert int(driver.cuCtxGetCurrent()[1]) == int(other)


def test_the_threads_context_is_left_as_it_was(kernels):
    call(leaves_the_context, kernels, kernels=kernels, arch=80, gpus=2)


def is_recorded(folder, blocking):
    """All but launches is done meanwhile beside the recording of a stream."""
    from cuda.bindings import driver

    gpu, twice, a, b = opened(folder)
    graph = gpu.graph([launch(twice, a, b)])
    x = numbers()
    gpu.upload(a, x, 0)
    _, context = driver.cuDevicePrimaryCtxRetain(0)
    driver.cuCtxSetCurrent(context)
    _, stream = driver.cuStreamCreate(0 if blocking == "blocking" else 1)
    assert not gpu.is_capturing(int(stream))
    driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL)
    assert gpu.is_capturing(int(stream))
    gpu.run(launch(twice, b, a), int(stream))
    gpu.run(CopyNode(a, b, 4 * N), int(stream))
    gpu.free(gpu.allocate(4))
    gpu.function(gpu.load(Path(folder, "cubin").read_bytes()), "twice")
    del graph
    result, recorded = driver.cuStreamEndCapture(stream)
    assert result == driver.CUresult.CUDA_SUCCESS
    _, executable = driver.cuGraphInstantiate(recorded, 0)
    for _ in range(2):
        driver.cuGraphLaunch(executable, stream)
    np.testing.assert_array_equal(read(gpu, a, int(stream)), 4 * x)


@pytest.mark.parametrize("blocking", ["blocking", "apart"])
def test_the_recording_of_a_stream(kernels, blocking):
    call(is_recorded, kernels, blocking, kernels=kernels, arch=80)


@without_driver
def test_no_driver():
    with pytest.raises(UsageError, match="a GPU is needed, and there is no driver"):
        CudaDevice(0)
