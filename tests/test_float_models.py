"""Float networks: no operator stays as TVM's loops, and ONNX Runtime's numbers come out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import helper
from tvm.tirx import PrimFunc

import gsb_tvm
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.schedules.sharing import is_phase, statements
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")

from torch import nn  # noqa: E402

from gsb_tvm.models.export import export  # noqa: E402  needs torch
from gsb_tvm.models.fill import realistic_  # noqa: E402
from gsb_tvm.models.gsb import PRESETS, Gsb, float_vit  # noqa: E402

IMAGE = (1, 3, 32, 32)


def convolutional() -> nn.Module:
    """A stem, a depthwise block, a grouped one, pooling of three kinds, a head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.GELU(),
        nn.Conv2d(16, 24, 1),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(24, 24, 3, padding=1, groups=3),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
        nn.Softmax(dim=-1),
    ).eval()


def _gsb(folder: Path) -> Path:
    export(realistic_(Gsb(PRESETS["mini"]), 0), folder / "gsb.onnx", "legacy")
    return folder / "gsb.onnx"


def _vit(folder: Path) -> Path:
    export(realistic_(float_vit(PRESETS["mini"]), 0), folder / "vit.onnx", "legacy")
    return folder / "vit.onnx"


def _convolutional(folder: Path) -> Path:
    path = folder / "convolutional.onnx"
    torch.onnx.export(convolutional(), torch.zeros(IMAGE), path, dynamo=False, opset_version=17)
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch: of its exporter
@pytest.mark.parametrize("target", ["native", "llvm -mcpu=x86-64", "llvm -mcpu=cortex-a72"])
@pytest.mark.parametrize("made", [_gsb, _vit, _convolutional])
def test_every_float_operator_is_scheduled(
    made: Callable[[Path], Path], target: str, tmp_path: Path
) -> None:
    options = Options(tmp_path / "m.so", stop_after="ScheduleFloat")
    module = compile_model(made(tmp_path), resolve(target), options).module
    kernels = {
        variable.name_hint: func
        for variable, func in module.functions_items()
        if isinstance(func, PrimFunc)
    }
    left = [name for name, func in kernels.items() if not any(map(is_phase, statements(func)))]
    assert left == []
    assert len(kernels) > 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch: of its exporter
@pytest.mark.parametrize("made", [_vit, _convolutional])
def test_numbers_of_a_float_network(made: Callable[[Path], Path], tmp_path: Path) -> None:
    path = made(tmp_path)
    image = np.random.default_rng(1).standard_normal(IMAGE).astype(np.float32)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = session.run(None, {session.get_inputs()[0].name: image})
    found = gsb_tvm.build(path).run([image])
    for got, want in zip(found, wanted, strict=True):
        # Sums of up to 192 terms in another order, through at most 30 layers: 192 * 30 * 2**-24.
        np.testing.assert_allclose(got, want, rtol=0, atol=3.5e-4 * np.abs(want).max())


def test_an_entry_walks_merged_axes_in_vectors(tmp_path: Path) -> None:
    """Its parts are known only at run time: nothing may need their bounds to stay a vector."""
    shape = (1, 5, 9, 7)
    network = tiny.model([helper.make_node("Relu", ["x"], ["y"])], {}, shape=shape, out_shape=shape)
    options = Options(tmp_path / "m.so", verify=False, dump_ir=tmp_path / "ir")
    compile_model(network, resolve("llvm -mcpu=haswell"), options)
    source = (tmp_path / "ir" / "model.s").read_text()
    assert "vmaxps" in source
    assert "vpextrq" not in source
    assert "vinsertps" not in source
