"""GPUs, drivers and artefacts that do not go together: each with its code and sentence."""

import os
from pathlib import Path

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.descriptor import descriptor
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.link import link_shared
from gsb_tvm.runtime.sections import find_section
from gsb_tvm.targets import resolve
from tests.cpp.cuda.conftest import Gpu
from tests.cpp.session.conftest import compiler, error, output


def test_each_kind_is_loaded_by_its_own(gpu: Gpu, program: Path) -> None:
    cpu = meta.read(gpu.on_cpu).target.cpu
    assert gpu.loaded(program, gpu.on_cpu) == [
        (
            "architecture",
            f"{gpu.on_cpu}: made for a CPU ({cpu}). Load it with gsb_tvm::Session, or compile the "
            "model with --target cuda.",
        )
    ]
    assert error(output(program, "load-on-cpu", gpu.tiny).strip()) == (
        "architecture",
        f"{gpu.tiny}: made for a GPU (sm_90), and this loads code for CPUs. Load it with "
        "gsb_tvm::CudaSession, or compile the model for a CPU.",
    )


def test_a_later_gpu_takes_the_ptx(gpu: Gpu, program: Path) -> None:
    assert gpu.loaded(program, gpu.tiny, arch=120) == [("loaded", "")]


def test_an_older_gpu_is_refused(gpu: Gpu, program: Path) -> None:
    sentence = (
        f"{gpu.tiny}: made for sm_90, and this GPU is sm_80, an older one. Compile the model with "
        "--target cuda -arch=sm_80."
    )
    assert gpu.loaded(program, gpu.tiny, arch=80) == [("gpu", sentence)]


def test_no_such_gpu(gpu: Gpu, program: Path) -> None:
    for ordinal in (-1, 2):
        sentence = f"there is no GPU {ordinal}: this machine has 2, from 0 on."
        assert gpu.loaded(program, gpu.tiny, ordinal=ordinal, gpus=2) == [("gpu", sentence)]


def test_no_gpu(gpu: Gpu, program: Path) -> None:
    ((code, sentence),) = gpu.loaded(program, gpu.tiny, gpus=0)
    assert code == "gpu"
    assert sentence == "a GPU is needed, and there is none to use (CUDA_ERROR_NO_DEVICE)."


def by_driver(program: Path, folder: Path, artefact: Path) -> tuple[str, str]:
    """How a load ends with the driver that is in a folder, or with none."""
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return error(output(program, "load", 0, artefact, env=env).strip())


def test_no_driver(gpu: Gpu, program: Path, tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_text("no library")  # before one that the system may have
    code, sentence = by_driver(program, tmp_path, gpu.tiny)
    assert code == "gpu"
    assert sentence.startswith("a GPU is needed, and NVIDIA's driver is not here (")


def test_a_driver_that_is_too_old(gpu: Gpu, program: Path, tmp_path: Path) -> None:
    source = tmp_path / "driver.c"
    source.write_text("int cuInit(unsigned flags) { return (int)flags; }\n")
    output(compiler("gcc"), "-shared", "-fPIC", source, "-o", tmp_path / "libcuda.so.1")
    assert by_driver(program, tmp_path, gpu.tiny) == (
        "gpu",
        "NVIDIA's driver is too old: it has no cuGetErrorName, which came with CUDA 12. Install "
        "version 525 or later.",
    )


def test_memory_that_the_gpu_does_not_give(gpu: Gpu, program: Path) -> None:
    _, size = find_section(gpu.tiny.read_bytes(), meta.WEIGHTS_SECTION, "tiny")
    sentence = (
        f"GPU 0 does not give {size} bytes of memory: CUDA_ERROR_OUT_OF_MEMORY. Run a smaller "
        "batch, or end what else uses the GPU."
    )
    assert gpu.loaded(program, gpu.tiny, memory=16) == [("memory", sentence)]
    said = gpu.output(
        program, "run", gpu.tiny, 1, gpu.x, gpu.kernels / "none.bin", memory=size, expected=1
    )
    assert said.startswith("error: GPU 0 does not give ")


def test_code_that_the_driver_refuses(gpu: Gpu, program: Path, tmp_path: Path) -> None:
    data = gpu.tiny.read_bytes()
    offset, size = find_section(data, ".gsb_cubin", "tiny")
    path = tmp_path / "m.so"
    path.write_bytes(meta.seal(data[:offset] + bytes(size) + data[offset + size :]))
    ((code, sentence),) = gpu.loaded(program, path)
    assert code == "gpu"
    assert sentence.startswith(f"{path}: GPU 0 refuses the artefact's code (CUDA_ERROR_")


def by_hand(gpu: Gpu, path: Path, old: str, new: str) -> Path:
    """An artefact like ``gpu.tiny`` whose descriptor says something else in one place."""
    data, metadata = gpu.tiny.read_bytes(), meta.read(gpu.tiny)
    said = descriptor(metadata).decode()
    assert said.count(old) >= 1
    section = meta.section(metadata, said.replace(old, new, 1).encode())
    blobs = [Blob(meta.SECTION, meta.SYMBOL, section)]
    for name in (meta.WEIGHTS_SECTION, ".gsb_cubin", ".gsb_ptx"):
        offset, size = find_section(data, name, "tiny")
        blobs.append(Blob(name, name[1:], data[offset : offset + size]))
    objects = [data_object("x86_64", blobs)]
    path.write_bytes(meta.seal(link_shared(resolve("native"), objects, path.parent)))
    return path


_DAMAGES = {
    "no code": ("code .gsb_cubin .gsb_ptx\n", ""),
    "no result": ("result ", "resort "),
    '"nowhere" is no place': ("result memory", "result nowhere"),
    '"9999999" is no number up to ': ("result memory ", "result memory 9999999 "),
    "there is no input 1": ("input 0", "input 1"),
    '"y" is larger than where it is': ("output float32 3 1 5 24 ", "output float32 3 1 50 240 "),
    "a line ends early": ("launch ", "launch f 1 1 1 1 1 1 9 memory 0\nlaunch "),
    '"4096" is no number up to 4095': ("launch ", "launch f 1 1 1 1 1 1 4096 memory 0\nlaunch "),
    '"x" is no number up to 255': ("gpu sm_90 9 0", "gpu sm_90 9 x"),
    "no two digits behind a %": ("model ", "model %"),
}


def test_damaged_launches(gpu: Gpu, program: Path, tmp_path: Path) -> None:
    paths = []
    for old, new in _DAMAGES.values():
        paths.append(by_hand(gpu, tmp_path / f"{len(paths)}.so", old, new))
    found = gpu.loaded(program, *paths)
    for path, said, (code, sentence) in zip(paths, _DAMAGES, found, strict=True):
        assert code == "damaged"
        assert sentence.startswith(f"{path}: the descriptor is damaged ({said}")


def test_constants_that_are_not_there(gpu: Gpu, program: Path, tmp_path: Path) -> None:
    path = by_hand(gpu, tmp_path / "m.so", "constant ", "constant 9999999")
    ((code, sentence),) = gpu.loaded(program, path)
    assert code == "damaged"
    assert sentence.startswith(f"{path}: there are no constants at 9999999")
