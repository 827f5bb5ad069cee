"""The engines: what a user could run the same network with."""

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType
from typing import Literal

from gsb_tvm.dialect.errors import UsageError


@dataclass(frozen=True)
class Engine:
    """One row of the comparison.

    Attributes
    ----------
    model
        "gsb", the binary network, or "float", the float one of the same size.
    module
        Of this package; it has ``prepare(job, precision)``, which returns files, and
        ``load(job, precision)``, which returns a function from images to output.
    precision
        "fp32", "bf16" or "int8" for engines that have several ways; "compiled" for torch.compile.
    needs
        Packages, as they are imported.
    same_numbers
        Whether its output differs from other float engines by rounding only.
    """

    name: str
    label: str
    model: Literal["gsb", "float"]
    module: str
    precision: str
    needs: tuple[str, ...]
    same_numbers: bool = True

    @property
    def missing(self) -> tuple[str, ...]:
        """Packages that are not installed."""
        return tuple(name for name in self.needs if find_spec(name) is None)

    def code(self) -> ModuleType:
        """The module that prepares and loads it."""
        return importlib.import_module(f"comparison.{self.module}")


OURS = "ours"
FLOAT_REFERENCE = "ort-fp32"

ENGINES = (
    Engine(OURS, "gsb_tvm, GSB", "gsb", "ours", "", ("tvm",)),
    Engine("ours-float", "gsb_tvm, float", "float", "ours", "", ("tvm",)),
    Engine("ort-gsb", "ONNX Runtime, GSB", "gsb", "onnx_runtime", "fp32", ("onnxruntime",)),
    Engine(
        FLOAT_REFERENCE, "ONNX Runtime, float", "float", "onnx_runtime", "fp32", ("onnxruntime",)
    ),
    Engine(
        "ort-int8", "ONNX Runtime, int8", "float", "onnx_runtime", "int8", ("onnxruntime",), False
    ),
    Engine("ov-fp32", "OpenVINO, float", "float", "open_vino", "fp32", ("openvino",)),
    Engine("ov-bf16", "OpenVINO, bf16", "float", "open_vino", "bf16", ("openvino",), False),
    Engine("ov-int8", "OpenVINO, int8", "float", "open_vino", "int8", ("openvino", "nncf"), False),
    Engine("torch", "PyTorch, eager", "float", "pytorch", "fp32", ("torch",)),
    Engine("torch-compile", "PyTorch, compiled", "float", "pytorch", "compiled", ("torch",)),
    Engine("tvm", "TVM as it comes, float", "float", "stock_tvm", "", ("tvm",)),
)


def engine(name: str) -> Engine:
    """Find an engine by its name."""
    return next(each for each in ENGINES if each.name == name)


def chosen(names: str) -> tuple[Engine, ...]:
    """Return the engines of a list such as ``ours,ort-fp32``, in the table's order; "all" is all.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    wanted = names.split(",")
    known = [each.name for each in ENGINES]
    if unknown := [name for name in wanted if name not in (*known, "all")]:
        raise UsageError(
            f'--engines: there is no engine "{unknown[0]}". Known are {", ".join(known)}, and all.'
        )
    return tuple(each for each in ENGINES if each.name in wanted or "all" in wanted)
