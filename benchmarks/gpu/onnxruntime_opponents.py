"""ONNX Runtime's side of the comparison, where it is built for GPUs: DeiT-Small in float16."""

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.opponents import cache_folder
from gsb_tvm.models.gsb import PRESETS, GsbConfig, float_vit

TENSORRT = "TensorrtExecutionProvider"
PROVIDERS: Mapping[str, str] = {
    "ONNX Runtime fp16": "CUDAExecutionProvider",
    "TensorRT fp16, in ONNX Runtime": TENSORRT,
}
"""Name of the opponent -> what computes for ONNX Runtime."""

_OPSET = 17
_IMAGE, _LOGITS = "image", "logits"


def missing(provider: str) -> str:
    """Why a provider cannot be had here; "" where it can."""
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed"
    if provider in onnxruntime.get_available_providers():
        return ""
    return f"onnxruntime {onnxruntime.__version__} has no {provider}"


def exported(config: GsbConfig, batch: int, dtype: torch.dtype, path: Path) -> nn.Module:
    """Write the float network for one batch, and return it; its weights are always the same."""
    torch.manual_seed(0)
    model = float_vit(config).eval().to(dtype)
    size = config.image_size
    images = torch.zeros(batch, config.channels, size, size, dtype=dtype)
    names = {"input_names": [_IMAGE], "output_names": [_LOGITS], "opset_version": _OPSET}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), str(path), dynamo=False, **names)
    return model


def session_of(path: Path, providers: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """A session that computes by these providers, and by no other.

    Raises
    ------
    RuntimeError
        ONNX Runtime chose another.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(str(path), options, [*providers])
    wanted = providers[0][0]
    if session.get_providers()[0] != wanted:
        raise RuntimeError(f"onnxruntime computes by {session.get_providers()[0]}, not {wanted}")
    return session


def run_of(provider: str, batch: int, preset: str) -> Callable[[], object]:
    """The network on a batch, as a graph of ONNX Runtime's, in turn with the current stream."""
    import onnxruntime

    config, dtype, stream = PRESETS[preset], torch.float16, torch.cuda.Stream()
    shared = {"device_id": "0", "user_compute_stream": str(stream.cuda_stream)}
    own = {
        "CUDAExecutionProvider": {"enable_cuda_graph": "1"},
        TENSORRT: {
            "trt_fp16_enable": "1",
            "trt_cuda_graph_enable": "1",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache_folder()),
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        exported(config, batch, dtype, path)
        session = session_of(path, [(provider, {**shared, **own[provider]})])
    size = config.image_size
    images = torch.randn(batch, config.channels, size, size, device="cuda", dtype=dtype)
    logits = torch.empty(batch, config.classes, device="cuda", dtype=dtype)
    binding = session.io_binding()
    for bind, name, tensor in (
        (binding.bind_input, _IMAGE, images),
        (binding.bind_output, _LOGITS, logits),
    ):
        bind(name, "cuda", 0, _numpy_type(tensor), tuple(tensor.shape), tensor.data_ptr())
    how = onnxruntime.RunOptions()
    how.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run() -> object:
        stream.wait_stream(torch.cuda.current_stream())
        session.run_with_iobinding(binding, how)
        torch.cuda.current_stream().wait_stream(stream)
        return images, logits

    return run


def _numpy_type(tensor: Tensor) -> Any:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype.type
