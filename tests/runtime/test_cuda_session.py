"""Artefacts for a GPU, on one that is emulated."""

from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.driver import compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.options import Options
from gsb_tvm.runtime.cuda import session
from gsb_tvm.targets import resolve
from tests.runtime.emulated_gpu import EmulatedGpu


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The demo model for sm_90: model.so, and what its kernels are."""
    made = tmp_path_factory.mktemp("cuda")
    options = Options(made / "model.so", verify=False, dump_ir=made / "ir")
    compile_model(model_path(), resolve("cuda -arch=sm_90"), options)
    return made


@pytest.fixture(scope="module")
def sources(folder):
    return [(folder / "ir" / "model.cu").read_text()]


@pytest.fixture(scope="module")
def on_cpu():
    return gsb_tvm.build(model_path())


def images(seed=0):
    return np.random.default_rng(seed).standard_normal((1, 1, 8, 8)).astype(np.float32)


def test_it_computes_what_a_cpu_does(folder, sources, on_cpu):
    gpu = EmulatedGpu(*sources)
    module = session.load_cuda(folder / "model.so", gpu)
    for seed in range(3):
        x = images(seed)
        np.testing.assert_allclose(module(x), on_cpu(x), rtol=0, atol=1e-5)
    assert gpu.graphs == 1
    assert all(image[:4] == b"\x7fELF" for image in gpu.loaded)


def test_what_needs_the_same_is_launched_at_once(folder, sources):
    module = session.load_cuda(folder / "model.so", EmulatedGpu(*sources))
    program = module.metadata.program
    products = [
        launch.function.count("dense") for launch in program.launches if "_and_" in launch.function
    ]
    blocks = sum(step.kind.startswith("attention_planes") for step in program.steps)
    assert products.count(3) == blocks > 0  # queries, keys and values


def test_arrays_are_not_recorded(folder, sources):
    gpu = EmulatedGpu(*sources)
    gpu.captured = []
    module = session.load_cuda(folder / "model.so", gpu)
    with pytest.raises(UsageError, match="recorded into a graph, and tensors of the call are in"):
        module(images())
    assert gpu.nodes == 0


def test_a_later_gpu_takes_the_ptx(folder, sources):
    gpu = EmulatedGpu(*sources, arch=(12, 0))
    session.load_cuda(folder / "model.so", gpu)
    assert all(b".version" in image for image in gpu.loaded)


def test_an_older_gpu_is_refused(folder, sources):
    with pytest.raises(ArtefactError, match="made for sm_90, and this GPU is sm_80, an older one"):
        session.load_cuda(folder / "model.so", EmulatedGpu(*sources, arch=(8, 0)))


def test_each_kind_is_loaded_by_its_own(folder, on_cpu, tmp_path):
    with pytest.raises(ArtefactError, match=r"made for a GPU \(sm_90\)"):
        gsb_tvm.load(folder / "model.so")
    on_cpu.save(tmp_path / "cpu.so")
    with pytest.raises(ArtefactError, match="made for a CPU"):
        gsb_tvm.load_cuda(tmp_path / "cpu.so")


def test_inputs_are_checked(folder, sources):
    module = session.load_cuda(folder / "model.so", EmulatedGpu(*sources))
    with pytest.raises(UsageError, match="is float64, expected float32"):
        module(images().astype(np.float64))
    with pytest.raises(UsageError, match="is not given"):
        module()


def test_equal_models_give_equal_bytes(folder, tmp_path):
    options = Options(tmp_path / "again.so", verify=False)
    compile_model(model_path(), resolve("cuda -arch=sm_90"), options)
    assert (tmp_path / "again.so").read_bytes() == Path(folder / "model.so").read_bytes()


def test_a_c_library_is_for_cpus(tmp_path):
    options = Options(tmp_path / "out", c_library="gsb")
    with pytest.raises(UsageError, match="a C library is for CPUs"):
        compile_model(model_path(), resolve("cuda -arch=sm_90"), options)


def test_the_host_build_is_compared(tmp_path):
    profile = resolve("cuda -arch=sm_80")
    result = compile_model(model_path(), profile, Options(tmp_path / "model.so"))
    (check,) = result.checks
    assert check.place == "host build"
    assert check.result.verdict == "ok"
