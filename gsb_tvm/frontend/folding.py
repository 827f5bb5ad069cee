"""Constant folding: elementwise steps in float32 in the graph's order, statistics in float64.

A statistic is a sum, mean or norm over constants, and scalar arithmetic on one. It stays float64
until it meets a float32 tensor, and is rounded once there (or where the input's path begins). A
float32 sum over a weight matrix is wrong by up to 4e-5, which moves every logit.
"""

import numpy as np

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend.evaluate import REDUCTIONS, evaluate
from gsb_tvm.frontend.graph import Array, Graph, Node, unrepeated
from gsb_tvm.frontend.messages import first_sentence

_SUMS = REDUCTIONS - {"ReduceMax", "ReduceMin"}
# Products of constants are sums as well, but their result is a tensor: rounded at once.
_PRODUCTS = frozenset({"MatMul"})


def fold_constants(graph: Graph) -> None:
    """Evaluate every node that does not depend on an input.

    Raises
    ------
    ModelError
        If a folded value is NaN, or the operands of a node do not fit.
    """
    statistics: dict[str, Array] = {}
    kept = []
    for node in graph.nodes:
        if not _fold(graph, node, statistics):
            kept.append(node)
    graph.nodes = kept
    graph.drop_dead()
    _refuse_nan(graph)


def _fold(graph: Graph, node: Node, statistics: dict[str, Array]) -> bool:
    if node.domain or not all(n in graph.constants for n in node.inputs if n):
        return False
    operands, wide = _operands(graph, node, statistics)
    # A statistic cast to float32 is still to be rounded only where it meets a tensor.
    op = "Identity" if wide and node.op == "Cast" else node.op
    try:
        results = evaluate(op, operands, node.attrs)
    except (ValueError, TypeError, IndexError, KeyError, MemoryError, OverflowError) as error:
        raise graph.error(
            node, f"cannot be computed ({first_sentence(error)}). Export the model again."
        ) from error
    if results is None:
        return False
    for name, array in zip(node.outputs, results, strict=False):
        if wide and array.dtype == np.float64 and node.op not in _PRODUCTS:
            statistics[name] = array
        if array.dtype == np.float64 and graph.types[name].dtype == np.float32:
            with np.errstate(over="ignore"):  # infinity, as float32 steps would give
                array = np.broadcast_to(unrepeated(array).astype(np.float32), array.shape)
        graph.set_constant(name, array)
    return True


def _operands(
    graph: Graph, node: Node, statistics: dict[str, Array]
) -> tuple[list[Array | None], bool]:
    """Return a node's operands, and whether they are in float64 because it is a statistic."""
    arrays = [graph.constants[name] if name else None for name in node.inputs]
    floats = [
        i for i, array in enumerate(arrays) if array is not None and array.dtype == np.float32
    ]
    known = [i for i in floats if node.inputs[i] in statistics]
    sums = node.op in _SUMS or node.op in _PRODUCTS
    scalars = all(i in known or graph.types[node.inputs[i]].shape in ((), (1,)) for i in floats)
    if not floats or not (sums or (known and scalars)):
        return arrays, False
    if node.op == "Cast" and node.attrs["to"] != 1:
        return arrays, False
    for i in floats:
        exact = statistics.get(node.inputs[i], graph.constants[node.inputs[i]])
        arrays[i] = exact.astype(np.float64, copy=False)
    return arrays, True


def _refuse_nan(graph: Graph) -> None:
    for name, array in graph.constants.items():
        if array.dtype.kind == "f" and np.isnan(unrepeated(array)).any():
            raise ModelError(
                f'{graph.name}, value "{name}": the weights it is computed from give NaN (a scale '
                "or deviation of zero?). Check the checkpoint the model was exported from."
            )
