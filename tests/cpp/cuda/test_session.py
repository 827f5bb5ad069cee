"""What gsb_tvm::CudaSession promises, with two compilers and under sanitizers; its numbers."""

from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.dialect.versions import PACKAGE
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.cuda.actions import actions_of
from tests import tiny_models as tiny
from tests.cpp.cuda.conftest import BATCHES, HERE, Gpu, compiled
from tests.cpp.session.conftest import SANITIZERS, built, compiler, output

_CLANGS = ("clang++", *(f"clang++-{n}" for n in range(21, 12, -1)))


def keeps_its_promises(gpu: Gpu, program: Path, *words: str) -> None:
    assert gpu.output(program, gpu.tiny, gpu.x, gpu.y, *words, gpus=2) == "ok\n"


@pytest.mark.parametrize("header", ["cuda_session", "cuda_tensor", "cuda_views", "dlpack"])
def test_each_header_stands_alone(header: str, tmp_path: Path) -> None:
    source = tmp_path / "alone.cpp"
    source.write_text(f"#include <gsb_tvm/{header}.hpp>\n#include <gsb_tvm/{header}.hpp>\n")
    built(source, tmp_path / "alone.o", "-c", by=compiler("g++"))


_BESIDE_CUDA = """
#include <cuda.h>
#include <gsb_tvm/cuda_session.hpp>

void run(const gsb_tvm::CudaSession& session, CUdeviceptr x, CUdeviceptr y, CUstream stream);
void run(const gsb_tvm::CudaSession& session, CUdeviceptr x, CUdeviceptr y, CUstream stream) {
  session.run({gsb_tvm::DeviceInput(x, gsb_tvm::Dtype::float32, {1, 2})},
              {gsb_tvm::DeviceOutput(y, gsb_tvm::Dtype::float32, {1, 2})}, stream);
}
using namespace gsb_tvm::detail::cuda;
static_assert(sizeof(KernelNode) == sizeof(CUDA_KERNEL_NODE_PARAMS));
static_assert(offsetof(KernelNode, grid) == offsetof(CUDA_KERNEL_NODE_PARAMS, gridDimX));
static_assert(offsetof(KernelNode, block) == offsetof(CUDA_KERNEL_NODE_PARAMS, blockDimX));
static_assert(offsetof(KernelNode, parameters) == offsetof(CUDA_KERNEL_NODE_PARAMS, kernelParams));
static_assert(sizeof(CopyNode) == sizeof(CUDA_MEMCPY3D));
static_assert(offsetof(CopyNode, source.device) == offsetof(CUDA_MEMCPY3D, srcDevice));
static_assert(offsetof(CopyNode, target.device) == offsetof(CUDA_MEMCPY3D, dstDevice));
static_assert(offsetof(CopyNode, target.memory_type) == offsetof(CUDA_MEMCPY3D, dstMemoryType));
static_assert(offsetof(CopyNode, width_bytes) == offsetof(CUDA_MEMCPY3D, WidthInBytes));
static_assert(success == CUDA_SUCCESS && out_of_memory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(capability_major == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(capability_minor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(pointer_ordinal == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
static_assert(device_memory == CU_MEMORYTYPE_DEVICE && non_blocking == CU_STREAM_NON_BLOCKING);
static_assert(captures_nothing == CU_STREAM_CAPTURE_STATUS_NONE);
static_assert(relaxed_capture == CU_STREAM_CAPTURE_MODE_RELAXED);
static_assert(without_timing == CU_EVENT_DISABLE_TIMING);
"""


def toolkit(folder: Path) -> Path:
    """The headers of CUDA's toolkit; the test is skipped without."""
    source = folder / "needs.cu"
    source.write_text("#include <cuda.h>\n")
    needed = output(compiler("nvcc"), "-M", source).replace("\\", " ").split()
    return next(Path(path).parent for path in needed if path.endswith("/cuda.h"))


@pytest.mark.parametrize("flag", ["-O1", "-DCUDA_API_PER_THREAD_DEFAULT_STREAM"])
def test_headers_of_cuda_beside_it(flag: str, tmp_path: Path) -> None:
    source = tmp_path / "beside.cpp"
    source.write_text(_BESIDE_CUDA)
    built(
        source, tmp_path / "a.o", "-c", flag, "-isystem", str(toolkit(tmp_path)), by=compiler("g++")
    )


def test_what_it_promises_without_rtti(gpu: Gpu, tmp_path: Path) -> None:
    flags = ("-O2", "-fno-rtti")
    program = built(HERE / "promises.cpp", tmp_path / "program", *flags, by=compiler(*_CLANGS))
    keeps_its_promises(gpu, program)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_what_it_promises_under_sanitizers(gpu: Gpu, sanitizer: str, tmp_path: Path) -> None:
    flags = (f"-fsanitize={sanitizer}", *SANITIZERS[sanitizer])
    program = built(HERE / "promises.cpp", tmp_path / "program", *flags, by=compiler("g++"))
    keeps_its_promises(gpu, program, *(["-"] if sanitizer == "thread" else []))


def ran(gpu: Gpu, program: Path, model: Path, given: np.ndarray, batch: int) -> np.ndarray:
    """What a program's call gives, from the host and on the GPU alike."""
    given.astype(np.float32).tofile(gpu.kernels / "in.bin")
    words = ("run", model, batch, gpu.kernels / "in.bin", gpu.kernels / "out.bin")
    gpu.output(program, *words)
    return np.fromfile(gpu.kernels / "out.bin", np.float32)


def test_the_demo_gives_the_numbers_of_a_cpu(gpu: Gpu, demo: Path, program: Path) -> None:
    image = np.random.default_rng(3).random((1, 1, 8, 8), np.float32)
    expected = gsb_tvm.build(model_path())(image)[0]
    # Sums are rounded in another order on a GPU.
    np.testing.assert_allclose(ran(gpu, program, demo, image, 1), expected, rtol=0, atol=1e-5)


def test_a_call_is_cut_into_batches(gpu: Gpu, batches: Path, program: Path) -> None:
    on_cpu = gsb_tvm.load(gpu.on_cpu)
    draw = np.random.default_rng(4)
    for batch in (1, 3, 7, 9):
        x = draw.standard_normal((batch, tiny.TOKENS, tiny.FEATURES), np.float32)
        made = ran(gpu, program, batches, x, batch)
        np.testing.assert_array_equal(made, on_cpu(x).reshape(-1))


def test_images_between_words(gpu: Gpu, program: Path) -> None:
    path = compiled(gpu, "odd.so", tiny.odd_linear(), batch=BATCHES)
    on_cpu = gsb_tvm.build(tiny.odd_linear(), batch=BATCHES)
    draw = np.random.default_rng(5)
    for batch in (1, 7):
        x = draw.standard_normal((batch, tiny.TOKENS, tiny.FEATURES + 1), np.float32)
        made = ran(gpu, program, path, x, batch)
        np.testing.assert_allclose(made, on_cpu(x).reshape(-1), rtol=0, atol=1e-5)
    programs = meta.read(path).programs
    assert all(actions_of(each).memory_bytes > each.memory.fixed_bytes for each in programs)
    memory = sum(-(-actions_of(each).memory_bytes // 256) * 256 for each in programs)
    assert f"GPU 0, {memory} bytes" in gpu.output(program, "describe", path)


def test_it_says_what_it_is(gpu: Gpu, batches: Path, program: Path) -> None:
    metadata = meta.read(batches)
    # Each program has its own, as the driver would align it.
    memory = sum(-(-actions_of(each).memory_bytes // 256) * 256 for each in metadata.programs)
    assert gpu.output(program, "describe", batches).splitlines() == [
        metadata.model.name,
        metadata.target.text,
        PACKAGE,
        f"GPU 0, {memory} bytes",
        "batches 1 2 4",
        "input x float32 1 5 40",
        "output y float32 1 5 24",
    ]
