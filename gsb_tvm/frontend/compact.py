"""Constants of elementwise operators in their smallest shape, however the exporter expanded them.

A bias arrives as [C], as Expand of it, or written out as [B, N, C]; all become [C]. Leading axes
along which a constant only repeats itself go, inner ones shrink to 1; the last axis keeps its
length, so that a uniform bias is still a vector. A single element becomes a scalar.
"""

import numpy as np

from gsb_tvm.frontend.graph import Array, Graph, Node, unrepeated

_ELEMENTWISE = frozenset(
    {
        "Add",
        "And",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Min",
        "Mul",
        "Or",
        "Pow",
        "Sub",
        "Where",
        "Xor",
    }
)


def compact_constants(graph: Graph) -> None:
    """Shrink the constants of elementwise operators; no result changes its shape."""
    smallest: dict[str, str] = {}
    for node in graph.nodes:
        if node.op not in _ELEMENTWISE:
            continue
        for index, name in enumerate(node.inputs):
            array = graph.constants.get(name)
            if array is None:
                continue
            if name not in smallest:
                smaller = smallest_shape(array)
                same = smaller.shape == array.shape
                smallest[name] = name if same else graph.add_constant(smaller, name)
            if _fits(graph, node, index, smallest[name]):
                node.inputs[index] = smallest[name]
    graph.drop_dead()


def smallest_shape(array: Array) -> Array:
    """Return the array without the axes along which it repeats itself, the last one excepted."""
    if array.size == 0:
        return array
    if array.size == 1:
        return array.reshape(())
    last = array.shape[-1]
    array = unrepeated(array)
    if array.shape[-1] != last:
        array = np.broadcast_to(array, (*array.shape[:-1], last))
    for axis in range(array.ndim - 1):
        if array.shape[axis] > 1:
            first = array.take([0], axis=axis)
            if np.array_equal(np.broadcast_to(first, array.shape), array):
                array = first
    leading = next(axis for axis, n in enumerate(array.shape) if n > 1 or axis == array.ndim - 1)
    return np.ascontiguousarray(array.reshape(array.shape[leading:]))


def _fits(graph: Graph, node: Node, index: int, candidate: str) -> bool:
    shapes = [graph.types[name].shape for name in node.inputs]
    shapes[index] = graph.types[candidate].shape
    return np.broadcast_shapes(*shapes) == graph.types[node.output].shape
