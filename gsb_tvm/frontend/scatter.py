"""ScatterND that means something simpler: a masked assignment, or a copy of a whole tensor.

``x[mask] = c`` leaves torch.export as NonZero, Transpose and ScatterND, whose shapes depend on
values; it is Where(mask, c, x). An assignment to a whole slice leaves constant indices that name
every row in order; it is the update itself.
"""

from collections.abc import Mapping

import numpy as np

from gsb_tvm.frontend.graph import Array, Graph, Node

# Between a masked assignment's constant and ScatterND; all keep a one-element tensor's value.
_SPREADING = frozenset({"Expand", "Reshape", "Squeeze", "Unsqueeze", "Identity"})


def simplify_scatter(graph: Graph, node: Node, producers: Mapping[str, Node]) -> None:
    """Turn a ScatterND into Where or Identity if that is its meaning; leave it alone otherwise."""
    if node.op != "ScatterND" or node.attrs.get("reduction", "none") != "none":
        return
    data, indices, updates = node.inputs
    mask = _mask(graph, indices, producers)
    if mask is not None:
        value = _single_value(graph, updates, producers)
        if value is not None and graph.types[mask].shape == graph.types[data].shape:
            node.op, node.attrs = "Where", {}
            node.inputs = [mask, graph.add_constant(value, "update"), data]
        return
    where = graph.value(indices)
    if where is not None and updates in graph.types and _names_every_row(graph, data, where):
        if graph.types[updates] == graph.types[data]:
            node.op, node.inputs, node.attrs = "Identity", [updates], {}


def _mask(graph: Graph, indices: str, producers: Mapping[str, Node]) -> str | None:
    """Return the mask behind Transpose(NonZero(mask))."""
    transpose = producers.get(indices)
    if transpose is None or transpose.op != "Transpose":
        return None
    nonzero = producers.get(transpose.inputs[0])
    if nonzero is None or nonzero.op != "NonZero" or transpose.attrs.get("perm", [1, 0]) != [1, 0]:
        return None
    mask = nonzero.inputs[0]
    return mask if mask in graph.types and graph.types[mask].dtype == np.bool_ else None


def _single_value(graph: Graph, name: str, producers: Mapping[str, Node]) -> Array | None:
    while name not in graph.constants:
        node = producers.get(name)
        if node is None or node.op not in _SPREADING:
            return None
        name = node.inputs[0]
    array = graph.constants[name]
    return array.reshape(()) if array.size == 1 else None


def _names_every_row(graph: Graph, data: str, indices: Array) -> bool:
    depth = indices.shape[-1]
    rows = graph.types[data].shape[:depth]
    if indices.shape[:-1] != rows:
        return False
    every = np.stack(np.meshgrid(*map(np.arange, rows), indexing="ij"), axis=-1)
    return np.array_equal(indices, every)
