"""The model that a compiled one is fairly compared with: its constants folded as ours are."""

import os

import onnx

from gsb_tvm.frontend.folding import fold_constants
from gsb_tvm.frontend.guards import check
from gsb_tvm.frontend.importer import as_graph
from gsb_tvm.frontend.reading import MAX_BYTES, read
from gsb_tvm.frontend.shapes import infer_static_shapes
from gsb_tvm.frontend.straight_through import cancel_straight_through

# Nodes that only repeat a constant: kept, because their results can be larger than all weights.
_REPEATS = frozenset({"Expand", "Tile"})


def folded_model(
    source: str | os.PathLike[str] | onnx.ModelProto, *, batch: int | None = None
) -> onnx.ModelProto:
    """Return an ONNX model with every constant of the import in the place of what computes it.

    A runtime that folds in float32 gets the scale of a binarised weight wrong by up to 4e-5, which
    moves every quantiser behind it. Nodes that depend on an input are left as they are.

    Parameters
    ----------
    source, batch
        As for :func:`gsb_tvm.frontend.importer.load`.

    Raises
    ------
    ModelError
        As for :func:`gsb_tvm.frontend.importer.load`.
    """
    model = read(source, MAX_BYTES)
    graph = as_graph(model, check(model.proto, model.name), batch)
    infer_static_shapes(graph)
    cancel_straight_through(graph)
    fold_constants(graph)
    proto = model.proto.graph
    needed = {value.name for value in proto.output}
    kept = []
    for node in reversed(proto.node):
        live = needed.intersection(node.output)
        if live and (node.op_type in _REPEATS or not live <= graph.constants.keys()):
            needed.update(node.input)
            kept.append(node)
    left = {name for node in kept for name in node.output}
    computed = {name for node in proto.node for name in node.output} - left
    folded = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in graph.constants.items()
        if name in computed and name in needed
    ]
    initializers = [tensor for tensor in proto.initializer if tensor.name in needed]
    # The copy that was read is ours: changed in place, its weights exist once.
    for repeated, items in ((proto.node, kept[::-1]), (proto.initializer, initializers)):
        del repeated[:]
        repeated.extend(items)
    proto.initializer.extend(folded)
    return model.proto
