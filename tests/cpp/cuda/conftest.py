"""Programs around gsb_tvm::CudaSession, and artefacts that a stand-in for the driver can run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

import gsb_tvm
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny
from tests.cpp.session.conftest import built, compiler, error, output
from tests.libcuda.build import environment
from tests.libcuda.emulations import emulating

HERE = Path(__file__).parent
TARGET = "cuda -arch=sm_90"


@dataclass(frozen=True)
class Gpu:
    """What the stand-in for NVIDIA's driver runs: artefacts, and the emulation of their kernels.

    ``tiny`` takes x (1, 5, 40) and gives y (1, 5, 24), exactly as ``on_cpu`` does, which takes any
    batch; ``x`` and ``y`` are files of raw numbers.
    """

    kernels: Path
    tiny: Path
    on_cpu: Path
    x: Path
    y: Path

    def output(self, *command: object, expected: int = 0, **settings: object) -> str:
        """What a program prints that has a GPU (:func:`tests.libcuda.build.environment`)."""
        env = environment(self.kernels, **settings)
        return output(*command, expected=expected, env=env)

    def loaded(self, program: Path, *paths: Path, ordinal: int = 0, **settings: object):
        """As :func:`tests.cpp.session.conftest.loaded`, on a GPU."""
        lines = self.output(program, "load", ordinal, *paths, **settings).splitlines()
        return [*map(error, lines)]


BATCHES = (1, 2, 4)


def any_batch() -> onnx.ModelProto:
    """The model of ``tiny`` whose batch is open."""
    return tiny.binary_linear(
        shape=("n", tiny.TOKENS, tiny.FEATURES), out_shape=("n", tiny.TOKENS, tiny.COLUMNS)
    )


def compiled(gpu: Gpu, name: str, model: Path | onnx.ModelProto, **options: object) -> Path:
    """An artefact that the GPU can run."""
    path = gpu.kernels / name
    with emulating(gpu.kernels):
        compile_model(model, resolve(TARGET), Options(path, verify=False, **options))
    return path


@pytest.fixture(scope="session")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> Gpu:
    folder = tmp_path_factory.mktemp("gpu")
    made = Gpu(folder, *(folder / name for name in ("tiny.so", "on_cpu.so", "x.bin", "y.bin")))
    compiled(made, made.tiny.name, tiny.binary_linear())
    options = Options(made.on_cpu, batch=BATCHES, verify=False)
    compile_model(any_batch(), resolve("native"), options)
    x = np.random.default_rng(3).standard_normal((1, tiny.TOKENS, tiny.FEATURES), np.float32)
    x.tofile(made.x)
    gsb_tvm.load(made.on_cpu)(x).tofile(made.y)
    return made


@pytest.fixture(scope="session")
def demo(gpu: Gpu) -> Path:
    return compiled(gpu, "demo.so", model_path())


@pytest.fixture(scope="session")
def batches(gpu: Gpu) -> Path:
    """``tiny`` for batches of 1, 2 and 4."""
    return compiled(gpu, "batches.so", any_batch(), batch=BATCHES)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cuda") / "program"
    return built(HERE / "program.cpp", out, by=compiler("g++"))
