"""Small ONNX models, built node by node."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TOKENS, FEATURES, COLUMNS = 5, 40, 24


def model(
    nodes: Sequence[onnx.NodeProto],
    initializers: dict[str, Any],
    *,
    shape: Sequence[int | str] = (1, TOKENS, FEATURES),
    out_shape: Sequence[int | str] = (1, TOKENS, FEATURES),
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    opsets: Sequence[onnx.OperatorSetIdProto] = (),
) -> onnx.ModelProto:
    """A model with input ``x`` and output ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, out_shape)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in initializers.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), *opsets], ir_version=8
    )


def weight(rows: int = FEATURES, columns: int = COLUMNS, seed: int = 0) -> np.ndarray:
    """A float weight."""
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def binary_weight(seed: int = 0) -> np.ndarray:
    """A weight of two levels, 0.25 and -0.25."""
    return np.where(weight(seed=seed) > 0, np.float32(0.25), np.float32(-0.25))


def binary_linear(seed: int = 0, **options: Any) -> onnx.ModelProto:
    """sign(x) times a binary weight, plus a float bias: one operator that is packed."""
    nodes = [
        helper.make_node("Sign", ["x"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["p"], name="/layer/MatMul"),
        helper.make_node("Add", ["p", "b"], ["y"]),
    ]
    bias = np.linspace(-1, 1, COLUMNS, dtype=np.float32)
    options.setdefault("out_shape", (1, TOKENS, COLUMNS))
    return model(nodes, {"w": binary_weight(seed), "b": bias}, **options)


def float_linear(array: np.ndarray | None = None, **options: Any) -> onnx.ModelProto:
    """X times a float weight."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="/layer/MatMul")]
    options.setdefault("out_shape", (1, TOKENS, COLUMNS))
    return model(nodes, {"w": weight() if array is None else array}, **options)


def odd_linear() -> onnx.ModelProto:
    """A float layer of an open batch whose images fill no whole words of 16 bytes."""
    shapes = {"shape": ("n", TOKENS, FEATURES + 1), "out_shape": ("n", TOKENS, COLUMNS)}
    return float_linear(weight(FEATURES + 1), **shapes)


def save(folder: Path, made: onnx.ModelProto, name: str = "m.onnx") -> str:
    """Write the model into ``folder`` and return the file's name."""
    (folder / name).write_bytes(made.SerializeToString())
    return name
