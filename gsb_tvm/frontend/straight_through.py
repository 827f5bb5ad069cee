"""Cancel straight-through residue: (a - b) + b and b + (a - b) are a.

Training code writes ``f(x).detach() - g(x).detach() + g(x)``; detach leaves no trace in ONNX. On
weights the two roundings of the residue blur the two levels of a binary row, so it goes before
anything is folded. Values are compared by structure: two nodes with the same operator, attributes
and operands are one value.

Limit: where ``b`` is infinite or NaN the written-out graph gives NaN and the cancelled one ``a``.
"""

from typing import Any

import numpy as np

from gsb_tvm.frontend.graph import Array, Graph, Node, unrepeated


def merge_equal_values(graph: Graph) -> None:
    """Let nodes and constants that compute the same value be one; an Identity is its input."""
    alias: dict[str, str] = {}
    alike: dict[Any, list[str]] = {}
    for name, array in graph.constants.items():
        others = alike.setdefault(_head(array), [])
        same = next((n for n in others if _content(graph.constants[n]) == _content(array)), None)
        if same is None:
            others.append(name)
        else:
            alias[name] = same
    seen: dict[Any, Node] = {}
    kept = []
    for node in graph.nodes:
        node.inputs = [alias.get(name, name) for name in node.inputs]
        if node.op == "Identity" and not node.domain:
            alias[node.output] = node.inputs[0]
            continue
        key = (node.op, node.domain, tuple(node.inputs), len(node.outputs), _frozen(node.attrs))
        first_node = seen.setdefault(key, node)
        if first_node is node:
            kept.append(node)
        else:
            alias.update(zip(node.outputs, first_node.outputs, strict=True))
    graph.nodes = kept
    graph.outputs = [alias.get(name, name) for name in graph.outputs]
    graph.constants = {name: a for name, a in graph.constants.items() if name not in alias}


def cancel_straight_through(graph: Graph) -> None:
    """Replace every (a - b) + b of the type of a by a, until none is left."""
    cancelled = 0
    while found := _cancel_once(graph):
        cancelled += found
    if cancelled:
        graph.notes.append(f"{cancelled} straight-through terms (a - b) + b cancelled")
        graph.drop_dead()


def _cancel_once(graph: Graph) -> int:
    merge_equal_values(graph)
    producers = {node.output: node for node in graph.nodes}
    alias: dict[str, str] = {}
    for node in graph.nodes:
        node.inputs = [alias.get(name, name) for name in node.inputs]
        if node.op == "Add" and (a := _cancelled(graph, node, producers)):
            alias[node.output] = a
    graph.nodes = [node for node in graph.nodes if node.output not in alias]
    graph.outputs = [alias.get(name, name) for name in graph.outputs]
    return len(alias)


def _cancelled(graph: Graph, node: Node, producers: dict[str, Node]) -> str | None:
    """Return a for a node (a - b) + b or b + (a - b) whose type is a's."""
    for difference, b in (node.inputs, node.inputs[::-1]):
        sub = producers.get(difference)
        if sub is not None and sub.op == "Sub" and sub.inputs[1] == b:
            a = sub.inputs[0]
            # A broadcast of b to more rows than a has is part of the value.
            if graph.types[a] == graph.types[node.output]:
                return a
    return None


def _head(array: Array) -> tuple[Any, ...]:
    """What tells most constants apart, so that few are compared in full."""
    return (array.shape, array.dtype.str, unrepeated(array).flat[:16].tobytes())


def _content(array: Array) -> tuple[Any, ...]:
    """Bits, not values: 0.0 and -0.0 are two constants."""
    return (array.shape, array.dtype.str, unrepeated(array).tobytes())


def _frozen(attrs: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        (key, _content(value) if isinstance(value, np.ndarray) else repr(value))
        for key, value in sorted(attrs.items())
    )
