"""OpenVINO: float, bf16, or quantised to int8 after training with NNCF."""

from pathlib import Path

import numpy as np

from comparison.jobs import Job, Run, calibration_images
from gsb_tvm.dialect.errors import UsageError

_HINTS = {"fp32": "f32", "bf16": "bf16"}


def prepare(job: Job, precision: str) -> list[Path]:
    """Return the model, or quantise it first."""
    if precision != "int8":
        return [Path(job.model)]
    out = job.beside(".ov-int8.xml")
    if not out.exists():
        _quantise(job, out)
    return [out, out.with_suffix(".bin")]


def load(job: Job, precision: str) -> Run:
    """Compiled for latency; int8 models do the rest in what OpenVINO takes for best here.

    Raises
    ------
    UsageError
        bf16 is asked for where engines are held to AVX2.
    """
    import openvino

    if job.isa == "avx2" and precision == "bf16":
        raise UsageError("AVX2 has no bf16")
    settings = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    # OpenVINO asks the CPU, not oneDNN, whether bf16 is best.
    hint = "f32" if job.isa == "avx2" else _HINTS.get(precision)
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = hint
    compiled = openvino.Core().compile_model(job.artefact, "CPU", settings)
    request, output = compiled.create_infer_request(), compiled.output(0)
    used = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def run(images: np.ndarray) -> np.ndarray:
        request.infer([images], share_inputs=True)
        return np.array(request.get_tensor(output).data)

    run.note = f"the rest in {used}" if precision == "int8" else ""
    return run


def _quantise(job: Job, out: Path) -> None:
    import nncf
    import openvino

    images = calibration_images(job)
    quantised = nncf.quantize(
        openvino.Core().read_model(job.model),
        nncf.Dataset(images),
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
    )
    openvino.save_model(quantised, str(out), compress_to_fp16=False)
