"""Artefacts for a GPU by NVIDIA's bindings, on the stand-in for the driver (tests/libcuda)."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.runtime.cuda.driver import CudaDevice
from gsb_tvm.runtime.cuda.launch_times import LaunchTimer, units
from tests.libcuda.process import call, count
from tests.libcuda.tensors import GpuTensor

LIVING = ("allocations", "modules", "graphs", "executables", "streams", "contexts", "host")
# Read by the tests' processes, which do without ONNX.
TOKENS, FEATURES, COLUMNS = 5, 40, 24
BATCHES = (1, 2)
MOST = 5


def compiled(folder, model, x, batch=None):
    """Into ``folder``: model.so for sm_80, emulated, ``x`` and what a CPU makes of it."""
    from gsb_tvm.driver import compile_model
    from gsb_tvm.options import Options
    from gsb_tvm.targets import resolve
    from tests.libcuda.emulations import emulating

    options = Options(folder / "model.so", verify=False, batch=batch)
    with emulating(folder):
        compile_model(model, resolve("cuda -arch=sm_80"), options)
    x = x.astype(np.float32)
    np.savez(folder / "numbers.npz", x=x, y=gsb_tvm.build(model, batch=batch)(x))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A layer of an open batch."""
    from tests import tiny_models as tiny

    assert (tiny.TOKENS, tiny.FEATURES, tiny.COLUMNS) == (TOKENS, FEATURES, COLUMNS)
    shapes = {"shape": ("n", TOKENS, FEATURES), "out_shape": ("n", TOKENS, COLUMNS)}
    x = np.random.default_rng(0).standard_normal((MOST, TOKENS, FEATURES))
    folder = tmp_path_factory.mktemp("layer")
    return compiled(folder, tiny.binary_linear(**shapes), x, BATCHES)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo model."""
    from gsb_tvm.models.demo import model_path

    x = np.random.default_rng(0).standard_normal((1, 1, 8, 8))
    return compiled(tmp_path_factory.mktemp("demo"), model_path(), x)


def numbers(folder):
    found = np.load(Path(folder, "numbers.npz"))
    return found["x"], found["y"]


def loaded(folder, gpu=0):
    return gsb_tvm.load_cuda(Path(folder, "model.so"), gpu)


def on_gpu(gpu, batch, columns=COLUMNS):
    return GpuTensor(gpu, (batch, TOKENS, columns))


def own_stream(flags=1):
    """A stream that somebody else made."""
    from cuda.bindings import driver

    _, context = driver.cuDevicePrimaryCtxRetain(0)
    driver.cuCtxPushCurrent(context)
    _, stream = driver.cuStreamCreate(flags)
    return int(stream)


def computes_any_batch(folder):
    module = loaded(folder)
    x, y = numbers(folder)
    for batch in (1, 2, MOST, 3, 1):
        np.testing.assert_array_equal(module(x[:batch]), y[:batch])
    assert count("graphs") == len(BATCHES)


@pytest.mark.parametrize("arch", [80, 89, 90])  # by machine code, and by PTX
def test_arrays_of_any_batch(made, arch):
    call(computes_any_batch, made, kernels=made, arch=arch)


def computes_where_tensors_are(folder):
    gpu = CudaDevice(0)
    module, stream = loaded(folder, gpu), own_stream()
    x, y = numbers(folder)
    for batch in (1, 3, 1):
        source, target = on_gpu(gpu, batch, FEATURES).write(x[:batch]), on_gpu(gpu, batch)
        before = count("kernels")
        assert module(source, out=target, stream=stream) is target
        assert count("kernels") == before, "the call waited"
        np.testing.assert_array_equal(target.read(stream), y[:batch])
        assert source.streams == target.streams == [stream]


def test_tensors_on_the_gpu(made):
    call(computes_where_tensors_are, made, kernels=made, arch=80)


def computes_from_an_array_to_a_tensor(folder):
    gpu = CudaDevice(0)
    module = loaded(folder, gpu)
    x, y = numbers(folder)
    target = on_gpu(gpu, 1)
    module(x[:1], out=target)
    np.testing.assert_array_equal(target.read(own_stream()), y[:1])  # it need not wait


def test_an_array_to_a_tensor(made):
    call(computes_from_an_array_to_a_tensor, made, kernels=made, arch=80)


class InTheMiddle(GpuTensor):
    """A tensor that begins ``offset`` bytes behind where memory begins."""

    def __init__(self, gpu, shape, offset):
        super().__init__(gpu, (shape[0] + 1, *shape[1:]))
        self.shape, self._managed.tensor.shape[0] = shape, shape[0]
        self._managed.tensor.data += offset


def refuses_inputs_in_the_middle(folder):
    gpu = CudaDevice(0)
    module = loaded(folder, gpu)
    target = on_gpu(gpu, 1)
    with pytest.raises(UsageError, match=r'"x" is at no multiple of 16 bytes, in which the GPU'):
        module(InTheMiddle(gpu, (1, TOKENS, FEATURES), 8), out=target)
    x, y = numbers(folder)
    module(x[:1], out=InTheMiddle(gpu, (1, TOKENS, COLUMNS), 4))  # is copied to
    module(x[:1], out=target)
    np.testing.assert_array_equal(target.read(), y[:1])


def test_tensors_in_the_middle_of_others(made):
    call(refuses_inputs_in_the_middle, made, kernels=made, arch=80)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A layer of an open batch whose images fill no whole words."""
    from tests import tiny_models as tiny

    x = np.random.default_rng(0).standard_normal((MOST, TOKENS, FEATURES + 1))
    return compiled(tmp_path_factory.mktemp("odd"), tiny.odd_linear(), x, BATCHES)


def computes_odd_images(folder):
    gpu = CudaDevice(0)
    module, stream = loaded(folder, gpu), own_stream()
    x, y = numbers(folder)
    source, target = on_gpu(gpu, MOST, FEATURES + 1).write(x), on_gpu(gpu, MOST)
    for _ in range(2):
        module(source, out=target, stream=stream)
        np.testing.assert_allclose(target.read(stream), y, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(module(x), y, rtol=1e-6, atol=1e-6)
    resident = module.resident(module.inputs(x[:1]))
    resident.run()
    LaunchTimer(resident, units(module.whole([x[:1]]).launches)).parts()
    found = np.empty_like(y[:1])
    resident.device.download(found, resident.nodes[-1].target, resident.stream)
    np.testing.assert_allclose(found, y[:1], rtol=1e-6, atol=1e-6)


def test_images_between_words(odd):
    call(computes_odd_images, odd, kernels=odd, arch=80)


def is_recorded(folder):
    from cuda.bindings import driver

    gpu = CudaDevice(0)
    module, stream = loaded(folder, gpu), own_stream()
    x, y = numbers(folder)
    source, target = on_gpu(gpu, 3, FEATURES), on_gpu(gpu, 3)
    driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL)
    with pytest.raises(UsageError, match="the stream is recorded into a graph, and tensors of"):
        module(x[:1], stream=stream)
    module(source, out=target, stream=stream)
    result, recorded = driver.cuStreamEndCapture(stream)
    assert result == driver.CUresult.CUDA_SUCCESS
    assert count("kernels") == 0
    _, executable = driver.cuGraphInstantiate(recorded, 0)
    for shift in (0, 1):
        source.write(x[shift : shift + 3])
        driver.cuGraphLaunch(executable, stream)
        np.testing.assert_array_equal(target.read(stream), y[shift : shift + 3])
    assert count("launched") == 2


def test_a_stream_that_is_recorded(made):
    call(is_recorded, made, kernels=made, arch=80)


def computes_in_threads(folder):
    module = loaded(folder)
    x, y = numbers(folder)
    module(x[:1])
    before = count("allocations")
    wrong = []

    def compute(seed):
        stream = own_stream(flags=seed % 2)
        for number in range(4):
            batch = 1 + (seed + number) % MOST
            if not np.array_equal(module(x[:batch], stream=stream), y[:batch]):
                wrong.append((seed, batch))

    threads = [threading.Thread(target=compute, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    gc.collect()
    assert count("allocations") == before


def test_threads(made):
    call(computes_in_threads, made, kernels=made, arch=80)


def gives_all_back(folder):
    module = loaded(folder)
    x, _ = numbers(folder)
    module(x)
    # Constants, memory of each of the two programs, what was copied there and back.
    assert count("allocations") == 5
    del module
    gc.collect()
    assert {each: count(each) for each in LIVING} == dict.fromkeys(LIVING, 0)


def test_nothing_is_left_of_a_module(made):
    call(gives_all_back, made, kernels=made, arch=80)


def computes_while_it_is_timed(folder):
    """Steps leave what they read as it is, and state as they find it."""
    module = loaded(folder)
    x, y = numbers(folder)
    np.testing.assert_allclose(module(x), y, rtol=0, atol=1e-5)
    resident = module.resident(module.inputs(x))
    timer = LaunchTimer(resident, units(module.whole(x).launches))
    assert timer.whole() > 0
    assert min(timer.parts()) > 0
    found = np.empty_like(y)
    resident.device.download(found, resident.nodes[-1].target, resident.stream)
    np.testing.assert_array_equal(found, module(x))


def test_the_demo_model_and_its_times(demo):
    call(computes_while_it_is_timed, demo, kernels=demo, arch=80)


def is_refused(folder):
    with pytest.raises(ArtefactError, match="made for sm_80, and this GPU is sm_75, an older one"):
        loaded(folder)
    gc.collect()
    assert {each: count(each) for each in LIVING} == dict.fromkeys(LIVING, 0)


def test_an_older_gpu(made):
    call(is_refused, made, kernels=made, arch=75)


def finds_no_memory(folder):
    module = loaded(folder)
    x, y = numbers(folder)
    with pytest.raises(UsageError, match=r"GPU 0 does not give \d+ bytes of memory"):
        module(np.repeat(x, 100, axis=0))
    np.testing.assert_array_equal(module(x[:1]), y[:1])


def test_too_little_memory_for_a_call(made):
    call(finds_no_memory, made, kernels=made, arch=80, memory=200_000)
