"""ONNX Runtime's side of the comparison, where it is built for GPUs: DeiT-Small in float16."""

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
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
    """Why a provider cannot be had here; "" where ONNX Runtime says that it can."""
    try:
        import onnx  # noqa: F401  PyTorch needs it to write a network
        import onnxruntime
    except ImportError as err:
        return f"{err.name} is not installed"
    if provider in onnxruntime.get_available_providers():
        return ""
    return f"onnxruntime {onnxruntime.__version__} has no {provider}"


def exported(config: GsbConfig, batch: int, like: Tensor, path: Path) -> nn.Module:
    """Write the float network for one batch, where and of the type that ``like`` is; return it.

    Its weights are always the same.
    """
    torch.manual_seed(0)
    model = float_vit(config).eval().to(like)
    size = config.image_size
    images = like.new_zeros(batch, config.channels, size, size)
    names = {"input_names": [_IMAGE], "output_names": [_LOGITS], "opset_version": _OPSET}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), str(path), dynamo=False, **names)
    return model


def session_of(path: Path, providers: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
    """A session whose first provider is the first of these.

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

    config, stream = PRESETS[preset], torch.cuda.Stream()
    like = torch.empty(0, device="cuda", dtype=torch.float16)
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
        # TensorRT's engine is kept under the file's name.
        path = Path(folder, f"{preset}-{batch}.onnx")
        exported(config, batch, like, path)
        session = session_of(path, [(provider, {**shared, **own[provider]})])
    size = config.image_size
    images = like.new_empty(batch, config.channels, size, size).normal_()
    logits = like.new_empty(batch, config.classes)
    binding = session.io_binding()
    for bind, name, tensor in (
        (binding.bind_input, _IMAGE, images),
        (binding.bind_output, _LOGITS, logits),
    ):
        bind(name, "cuda", 0, np.float16, tuple(tensor.shape), tensor.data_ptr())
    how = onnxruntime.RunOptions()
    how.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run() -> object:
        stream.wait_stream(torch.cuda.current_stream())
        session.run_with_iobinding(binding, how)
        torch.cuda.current_stream().wait_stream(stream)
        return images, logits

    run()
    torch.cuda.synchronize()  # what fails fails here
    return run
