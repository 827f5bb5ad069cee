"""ONNX Runtime as the reference, run in ways that differ only in rounding."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.runtime.metadata import Tensor

# Moves the outputs of a GSB DeiT-Small by 4e-7, as much as another order of summation does; with
# 2^-20 a bit flips somewhere on four images in five, and nothing could be said about those.
SCALING = 2.0**-22
_SCALED_RUNS = 6

Array = NDArray[Any]
Run = Callable[[Sequence[Array]], list[Array]]
MakeRun = Callable[[], Run]


def onnxruntime_package() -> Any:
    """ONNX Runtime's module, imported here for the first time, without its reports to its makers.

    Since 1.29 it sends them unless this variable is set, from a thread of its own and by way of a
    database in the user's home. Where the user has set it, to whatever, it stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def onnxruntime_runs(model: Any, inputs: Sequence[Tensor], seed: int = 0) -> list[MakeRun]:
    """Ways to run ``model`` (path, bytes or ``ModelProto``) that differ only in rounding."""
    plain = [lambda optimise=o: onnxruntime_run(model, inputs, optimise=optimise) for o in (1, 0)]
    scaled = [
        lambda n=n: onnxruntime_run(_scaled(model, seed + n), inputs, optimise=n % 2 == 0)
        for n in range(_SCALED_RUNS)
    ]
    return [*plain, *scaled]


def onnxruntime_run(model: Any, inputs: Sequence[Tensor], *, optimise: bool = True) -> Run:
    """Make a function that runs ``model`` (path, bytes or ``ModelProto``) on one thread.

    Raises
    ------
    ToolchainError
        ONNX Runtime refuses the model.
    UsageError
        The model has other inputs.
    """
    onnxruntime = onnxruntime_package()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it keeps more than the model's size for later runs
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model.SerializeToString() if hasattr(model, "SerializeToString") else model
    source = str(source) if isinstance(source, Path) else source
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime raises classes of its native module
        raise ToolchainError(f"ONNX Runtime refuses the model ({_first_line(err)}).") from err
    _check_inputs(session.get_inputs(), inputs)
    names = [spec.name for spec in inputs]

    def run(arrays: Sequence[Array]) -> list[Array]:
        try:
            return list(session.run(None, dict(zip(names, arrays, strict=True))))
        except Exception as err:
            raise ToolchainError(f"ONNX Runtime fails on the model ({_first_line(err)}).") from err

    return run


def _check_inputs(found: Sequence[Any], wanted: Sequence[Tensor]) -> None:
    """Refuse a model that cannot be the one of an artefact; an extent that is open fits any."""

    def fits(shape: Sequence[Any], extents: Sequence[int]) -> bool:
        pairs = zip(shape, extents, strict=False)
        same = (not isinstance(size, int) or size == extent for size, extent in pairs)
        return len(shape) == len(extents) and all(same)

    shapes = {one.name: one.shape for one in found}
    names = [spec.name for spec in wanted]
    if set(shapes) == set(names) and all(fits(shapes[one.name], one.shape) for one in wanted):
        return
    model = ", ".join(f"{name} {_text(shape)}" for name, shape in shapes.items())
    artefact = ", ".join(f"{spec.name} {_text(spec.shape)}" for spec in wanted)
    raise UsageError(
        f"that is another model: it takes {model}, the artefact {artefact}. "
        "Give the ONNX file that it was compiled from."
    )


def _text(shape: Sequence[Any]) -> str:
    return " x ".join(str(size) if isinstance(size, int) else "?" for size in shape)


def _scaled(model: Any, seed: int) -> bytes:
    """Serialise the model with each float tensor scaled by a factor within ``SCALING`` of 1.

    One factor for the whole tensor keeps zeros, the equal magnitudes of a binary weight, and with
    them sums that cancel exactly.
    """
    import onnx
    from onnx import numpy_helper

    rng = np.random.default_rng(seed)
    scaled = onnx.ModelProto()
    if isinstance(model, str | Path):
        scaled = onnx.load(model)
    elif isinstance(model, bytes):
        scaled.ParseFromString(model)
    else:
        scaled.CopyFrom(model)
    for tensor in scaled.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            factor = 1 + SCALING * rng.uniform(-1, 1)
            moved = (values * np.float64(factor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
    return bytes(scaled.SerializeToString())


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0][:300]
