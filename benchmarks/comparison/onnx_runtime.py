"""ONNX Runtime: the model as it is, or statically quantised to int8 with QDQ nodes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from comparison.jobs import Job, Run, calibration_images
from gsb_tvm.runtime.reference import onnxruntime_package


def prepare(job: Job, precision: str) -> list[Path]:
    """Return the model, or quantise it first."""
    if precision == "fp32":
        return [Path(job.model)]
    out = job.beside(".ort-int8.onnx")
    if not out.exists():
        _quantise(job, out)
    return [out]


def load(job: Job, _precision: str) -> Run:
    """Session on the CPU."""
    onnxruntime = onnxruntime_package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job.threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job.artefact, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _quantise(job: Job, out: Path) -> None:
    """Weights per channel; operators and types as ONNX Runtime's guide for transformers on x86."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization.quantize import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.load(job.model, load_external_data=False).graph.input[0].name
    images: Iterator[np.ndarray] = iter(calibration_images(job))

    class Reader(CalibrationDataReader):
        """Feeds the calibration images, one batch of each."""

        def get_next(self):
            """Next feed, or None at the end."""
            image = next(images, None)
            return None if image is None else {name: image}

    cleaned, unfinished = out.with_suffix(".cleaned"), out.with_suffix(".part")
    quant_pre_process(job.model, str(cleaned), skip_symbolic_shape=True)
    quantize_static(
        str(cleaned),
        str(unfinished),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm", "Conv"],
    )
    cleaned.unlink()
    unfinished.rename(out)
