"""GSB DeiT-Small for a GPU, whole, on one that is emulated."""

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.driver import compile_model
from gsb_tvm.options import Options
from gsb_tvm.runtime.cuda.session import load_cuda
from gsb_tvm.targets import resolve
from tests.runtime.emulated_gpu import EmulatedGpu


@pytest.mark.slow
def test_it_computes_what_a_cpu_does(tmp_path):
    from gsb_tvm.models import export

    path = tmp_path / "deit-small.onnx"
    assert export.main(["--preset", "deit-small", "--realistic", "0", str(path)]) == 0
    options = Options(tmp_path / "model.so", verify=False, dump_ir=tmp_path / "ir")
    compile_model(path, resolve("cuda -arch=sm_90"), options)
    gpu = EmulatedGpu((tmp_path / "ir" / "model.cu").read_text())
    module, on_cpu = load_cuda(tmp_path / "model.so", gpu), gsb_tvm.build(path)
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal((1, 3, 224, 224)).astype(np.float32)
        np.testing.assert_allclose(module(x), on_cpu(x), rtol=0, atol=1e-5)
