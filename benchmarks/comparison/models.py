"""The two models of a comparison, and the images they are given."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from gsb_tvm.dialect.errors import GsbError, ModelError, UsageError

CALIBRATION_IMAGES = 8


@dataclass(frozen=True)
class Source:
    """Where models come from: a preset's name, or the user's files, either of which may lack."""

    preset: str
    gsb: Path | None
    dense: Path | None
    calibration: Path | None


@dataclass(frozen=True)
class Models:
    """ONNX files of one batch, by kind ("gsb", "float"), and files of images for each kind."""

    files: dict[str, Path]
    images: dict[str, Path]
    calibration: dict[str, Path]


def models(source: Source, batch: int, work: Path) -> Models:
    """Export the preset or fix the user's files to the batch, and draw images.

    Raises
    ------
    ModelError
        A file is damaged.
    UsageError
        A file has another batch, or not exactly one input of float32 images.
    """
    files = {}
    if source.preset:
        files = {kind: exported(source.preset, kind, batch, work) for kind in ("gsb", "float")}
    for kind, path in (("gsb", source.gsb), ("float", source.dense)):
        if path is not None:
            files[kind] = _fixed(path, batch, work)
    images, calibration = {}, {}
    for kind, path in files.items():
        shape = input_shape(path)
        images[kind] = _drawn(work / f"images-{'-'.join(map(str, shape))}.npy", 1, shape)
        wanted = (CALIBRATION_IMAGES, *shape[1:])
        name = f"calibration-{'-'.join(map(str, wanted))}.npy"
        calibration[kind] = source.calibration or _drawn(work / name, 2, wanted)
    return Models(files, images, calibration)


def exported(preset: str, kind: str, batch: int, work: Path) -> Path:
    """A network with parameters as if trained; a file that lies there is taken as it is."""
    out = work / f"{preset}-{kind}-{batch}.onnx"
    if out.exists():
        return out
    # In a process of its own, so that PyTorch does not stay in this one.
    command = [sys.executable, "-m", "gsb_tvm.models.export", "--preset", preset]
    options = ["--realistic", "0", "--batch", str(batch), *(["--float"] * (kind == "float"))]
    unfinished = out.with_suffix(".part")
    done = subprocess.run(
        [*command, *options, str(unfinished)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"code {done.returncode}"]
        raise GsbError(f"the network cannot be exported: {last[0]}")
    return unfinished.rename(out)


def _fixed(path: Path, batch: int, work: Path) -> Path:
    """The user's file itself, or a copy with its open batch closed."""
    try:
        model = onnx.load(str(path))
    except Exception as err:  # protobuf raises classes of its native module
        raise ModelError(f"{path}: cannot be read as an ONNX file ({type(err).__name__}).") from err
    first = _only_input(model, path).type.tensor_type.shape.dim[0]
    if first.dim_value == batch:
        return path
    if first.dim_value:
        raise UsageError(
            f"{path}: its batch is fixed to {first.dim_value}, but --batch asks for {batch}. "
            "Export it with an open batch, or change --batch."
        )
    first.dim_value = batch
    del model.graph.value_info[:]
    out = work / f"{path.stem}-{batch}.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), str(out))
    return out


def _only_input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    if kind is None or kind.elem_type != onnx.TensorProto.FLOAT or not kind.shape.dim:
        raise UsageError(
            f"{path}: it has {len(inputs)} inputs, expected one, of float32 images. "
            "Time such a model with gsb_tvm.load and a loop of your own."
        )
    return inputs[0]


def input_shape(path: Path) -> tuple[int, ...]:
    """Shape of the only input of a file.

    Raises
    ------
    UsageError
        An extent other than the batch is open.
    """
    found = _only_input(onnx.load(str(path), load_external_data=False), path)
    shape = tuple(dim.dim_value for dim in found.type.tensor_type.shape.dim)
    if not all(shape):
        raise UsageError(f"{path}: its input has open extents {shape} besides the batch.")
    return shape


def _drawn(path: Path, seed: int, shape: Sequence[int]) -> Path:
    """Seeded normal images, float32."""
    if not path.exists():
        np.save(path, np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    return path
