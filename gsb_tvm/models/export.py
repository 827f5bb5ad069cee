"""Write a network as ONNX, in each form that PyTorch's two exporters and onnxsim produce.

Command: ``python -m gsb_tvm.models.export --preset deit-small --realistic 0 out.onnx``
"""

import argparse
import contextlib
import copy
import io
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import onnx
import torch
from torch import nn

from gsb_tvm.dialect.errors import GsbError, OutputError, ToolchainError, UsageError
from gsb_tvm.models.bake import bake_weights
from gsb_tvm.models.checkpoint import load_network
from gsb_tvm.models.fill import fresh_, realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb, float_vit

Form = Literal["legacy", "legacy-sim", "dynamo", "dynamo-sim"]
FORMS: tuple[Form, ...] = get_args(Form)
INPUT, OUTPUT = "image", "logits"
OPSETS = {"legacy": (17, 20), "dynamo": (17, 22)}
OLDEST_DYNAMO_OPSET = 18


def export(
    model: Gsb,
    path: str | os.PathLike[str],
    form: Form = "legacy",
    *,
    batch: int = 1,
    dynamic_batch: bool = False,
    opset: int = 17,
    external_data: bool = False,
) -> Path:
    """Write ``model`` as ONNX with input ``image`` and output ``logits``.

    Parameters
    ----------
    form
        The exporter (TorchScript or ``torch.export``), and whether onnxsim simplifies the result.
    batch
        Images in the input; with ``dynamic_batch`` only the size of the traced example.
    opset
        17 to 20 (legacy) or 17 to 22 (dynamo, which writes 18 where 17 is asked for).
    external_data
        Put the weights into ``<name>.data`` beside the file.

    Raises
    ------
    UsageError
        If the exporter does not write the opset, or the batch is not positive.
    OutputError
        If the file cannot be written.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}, expected one of {', '.join(FORMS)}")
    _check(form, batch, opset)
    proto = _trace(model, form, batch=batch, dynamic_batch=dynamic_batch, opset=opset)
    if form.endswith("-sim"):
        proto = _simplify(proto)
    onnx.checker.check_model(proto, full_check=True)
    return _save(proto, Path(path), external_data=external_data)


def _check(form: Form, batch: int, opset: int) -> None:
    if batch < 1:
        raise UsageError(f"batch is {batch}, expected 1 or more. Change --batch.")
    low, high = OPSETS[form.removesuffix("-sim")]
    if not low <= opset <= high:
        raise UsageError(
            f"opset is {opset}, but the exporter of form {form} writes {low} to {high}. "
            "Change --opset or --form."
        )


def _trace(
    model: Gsb, form: Form, *, batch: int, dynamic_batch: bool, opset: int
) -> onnx.ModelProto:
    config = model.config
    # Batch 1 is special to torch.export, which takes it for a constant.
    size = max(batch, 2) if dynamic_batch else batch
    image = torch.zeros(size, config.channels, config.image_size, config.image_size)
    names: dict[str, Any] = {
        "input_names": [INPUT],
        "output_names": [OUTPUT],
        "opset_version": opset,
    }
    model = copy.deepcopy(model).eval()
    with tempfile.TemporaryDirectory() as folder, _quiet(), torch.no_grad():
        file = str(Path(folder) / "model.onnx")
        if form.startswith("legacy"):
            axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}} if dynamic_batch else None
            torch.onnx.export(model, (image,), file, dynamo=False, dynamic_axes=axes, **names)
        else:
            shapes = ({0: torch.export.Dim("batch")},) if dynamic_batch else None
            names["opset_version"] = max(opset, OLDEST_DYNAMO_OPSET)
            torch.onnx.export(
                model,
                (image,),
                file,
                dynamo=True,
                dynamic_shapes=shapes,
                external_data=False,
                **names,
            )
        return onnx.load(file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress lines and their remarks about themselves off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _quiet_native() -> Iterator[None]:
    """Silence native code, which writes to the descriptors: onnxsim warns of each kept Sign."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        yield
    finally:
        for descriptor, copy_of in enumerate(saved, start=1):
            os.dup2(copy_of, descriptor)
            os.close(copy_of)
        os.close(sink)


def _simplify(proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        import onnxsim
    except ImportError as error:
        raise ToolchainError(
            "onnxsim is not installed, which simplified forms need. Run pip install onnxsim, "
            "or export the form without -sim."
        ) from error
    with _quiet_native():
        simplified, agrees = onnxsim.simplify(proto)
    if not agrees:
        raise GsbError("onnxsim changed the model's outputs; export without simplification.")
    return simplified


def _save(proto: onnx.ModelProto, path: Path, *, external_data: bool) -> Path:
    data: dict[str, Any] = {}
    if external_data:
        data = {
            "save_as_external_data": True,
            "all_tensors_to_one_file": True,
            "location": path.name + ".data",
            "size_threshold": 1024,
        }
        # onnx appends to an existing data file.
        path.with_name(path.name + ".data").unlink(missing_ok=True)
    try:
        onnx.save_model(proto, str(path), **data)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot write the ONNX file ({error.strerror}). Choose another path."
        ) from error
    return path


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m gsb_tvm.models.export", description="Write a GSB network as ONNX."
    )
    parser.add_argument("output", type=Path, help="the ONNX file to write")
    parser.add_argument("--preset", choices=PRESETS, default="deit-small", help="network shape")
    parser.add_argument(
        "--form", choices=FORMS, default="legacy", help="exporter, simplified or not"
    )
    parser.add_argument("--batch", type=int, default=1, help="images in the input (default 1)")
    parser.add_argument("--dynamic-batch", action="store_true", help="leave the batch size open")
    parser.add_argument("--opset", type=int, default=17, help="ONNX opset (default 17)")
    parser.add_argument("--external-data", action="store_true", help="weights in a file beside it")
    parser.add_argument("--float", action="store_true", help="the float network of the same shape")
    parser.add_argument("--bake", action="store_true", help="write quantised weights as constants")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--checkpoint", type=Path, help="official checkpoint or one of ours")
    source.add_argument("--realistic", type=int, metavar="SEED", help="parameters as if trained")
    source.add_argument("--fresh", type=int, metavar="SEED", help="untrained parameters")
    return parser.parse_args(argv)


def _network(args: argparse.Namespace) -> Gsb:
    config = PRESETS[args.preset]
    if args.checkpoint is not None:
        return load_network(args.checkpoint, config.without_quantizers() if args.float else config)
    model = float_vit(config) if args.float else Gsb(config)
    if args.fresh is not None:
        return fresh_(model, args.fresh)
    return realistic_(model, args.realistic or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = _arguments(argv)
    try:
        model: nn.Module = _network(args)
        if args.bake:
            model = bake_weights(model)
        export(
            model,
            args.output,
            args.form,
            batch=args.batch,
            dynamic_batch=args.dynamic_batch,
            opset=args.opset,
            external_data=args.external_data,
        )
    except GsbError as error:
        print(f"error: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
