"""`load`: the stages of the front end, in order."""

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import tvm

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.compact import compact_constants
from gsb_tvm.frontend.folding import fold_constants
from gsb_tvm.frontend.graph import Graph, Node, attribute_values
from gsb_tvm.frontend.guards import check
from gsb_tvm.frontend.messages import first_sentence
from gsb_tvm.frontend.normal_forms import normalise
from gsb_tvm.frontend.reading import MAX_BYTES, Source, read
from gsb_tvm.frontend.shapes import fix_batch, infer_static_shapes
from gsb_tvm.frontend.straight_through import cancel_straight_through, merge_equal_values
from gsb_tvm.frontend.to_relax import to_relax


@dataclass(frozen=True)
class Port:
    """An input or output: the model's name for it, its static shape, its element type."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ImportedModel:
    """A model as Relax.

    Attributes
    ----------
    module
        One function ``main`` whose parameters are ``inputs`` in order; it returns the output, or
        a tuple of ``outputs`` in order. Everything else is a constant.
    sha256
        Digest of the file's bytes followed by those of its external tensors.
    notes
        What was decided on the way, one sentence each.
    batch
        Size that an open batch axis was given; 0 where none is open.
    """

    module: tvm.IRModule
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sha256: str
    opset: int
    producer: str
    notes: list[str] = field(default_factory=list)
    batch: int = 0


def load(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    batch: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> ImportedModel:
    """Read, check and import an ONNX model.

    Parameters
    ----------
    source
        Path of the file, or a model in memory without external data.
    batch
        Size of a symbolic axis 0 of the inputs (default 1). A fixed one must be equal to it.
    max_bytes
        Limit on the file and its external data together.

    Raises
    ------
    ModelError
        If the model is damaged, unsafe, or holds what is not handled; one sentence that names the
        node or tensor.
    """
    if batch is not None and batch < 1:
        raise ModelError(f"batch is {batch}, expected at least 1.")
    model = read(source, max_bytes)
    try:
        opset = check(model.proto, model.name)
        graph = as_graph(model, opset, batch)
        _transform(graph)
        module = to_relax(graph)
    except ModelError:
        raise
    except Exception as error:  # a damaged model must not end in a traceback
        raise ModelError(
            f"{model.name}: importing it failed ({type(error).__name__}: {first_sentence(error)})."
        ) from error
    types = [graph.types[name] for name in graph.outputs]
    return ImportedModel(
        module=module,
        inputs=tuple(Port(n, t.shape, t.dtype.name) for n, t in graph.inputs.items()),
        outputs=tuple(
            Port(name, t.shape, t.dtype.name)
            for name, t in zip(graph.output_names, types, strict=True)
        ),
        sha256=model.sha256,
        opset=opset,
        producer=f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        notes=graph.notes,
        batch=graph.batch,
    )


def _transform(graph: Graph) -> None:
    infer_static_shapes(graph)
    # Before folding: the residue blurs the two levels of a binary weight.
    cancel_straight_through(graph)
    fold_constants(graph)
    normalise(graph)
    compact_constants(graph)
    # Spellings that were different nodes before may be equal values now.
    merge_equal_values(graph)
    graph.drop_dead()
    _refuse_wide_floats(graph)


def _refuse_wide_floats(graph: Graph) -> None:
    for node in graph.nodes:
        dtype = graph.types[node.output].dtype
        if (dtype.kind == "f" and dtype != np.float32) or dtype.kind not in "fiub":
            raise graph.error(
                node, f"it computes in {dtype.name}, expected float32. Export it in float32."
            )


def as_graph(model: Source, opset: int, batch: int | None) -> Graph:
    """Return a checked model as a graph: nothing folded, an open batch axis fixed."""
    proto = model.proto.graph
    outputs = [value.name for value in proto.output]
    graph = Graph(model.name, opset, [], {}, {}, list(outputs), outputs)
    for tensor in proto.initializer:
        graph.set_constant(tensor.name, onnx.numpy_helper.to_array(tensor))
    fix_batch(graph, [v for v in proto.input if v.name not in graph.constants], batch)
    for node in proto.node:
        attrs = attribute_values(node)
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            graph.set_constant(node.output[0], _constant(attrs))
            continue
        if node.op_type == "Split":
            attrs.setdefault("num_outputs", len(node.output))
        domain = "" if node.domain == "ai.onnx" else node.domain
        made = Node(node.op_type, list(node.input), list(node.output), attrs, node.name, domain)
        made.label = _label(node)
        graph.nodes.append(made)
    return graph


def _label(node: onnx.NodeProto) -> str:
    """Return a name that tells the module: blocks.0/attn/qkv/MatMul, however it was exported."""
    if node.name.startswith("/"):
        return node.name
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            # "['', 'blocks', 'blocks.0', 'blocks.0.attn', 'matmul']": a list of quoted words.
            scopes = entry.value.strip("[]").replace("'", "").split(", ")
            return "/".join(scopes[-2:])
    return node.output[0].removesuffix("_output_0")


def _constant(attrs: dict[str, Any]) -> np.ndarray:
    """Return the value of a Constant node, which may be spelt in six ways."""
    (key, value), *_ = attrs.items()
    if key in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    return np.asarray(value)
