"""Bring a spelled-out layer norm back to one operator."""

from tvm import relax
from tvm.ir.transform import Pass

from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.rewriting import Expr, Graph, literal, operand_pair, rewrite_pass, scalar


def FuseLayerNorm() -> Pass:
    """Replace mean, centre, square, mean, eps, root, divide, scale, shift by ``layer_norm``.

    Before  c = x - mean(x);  y = c / sqrt(mean(c * c) + eps) * gamma + beta
    After   y = layer_norm(x, gamma, beta, axes=[-1], epsilon=eps)
    Requires   means over the last axis only, gamma and beta constant vectors of that axis
    Leaves alone   norms over other axes, live gamma or beta, a missing scale or shift
    Exact   the same formula; the sums may be taken in another order
    Source   layer normalisation as exporters write it out, arXiv 1607.06450
    """
    return rewrite_pass("FuseLayerNorm", lambda: lambda _var, value, g: _fuse(value, g))


def _fuse(value: Expr, graph: Graph) -> Expr | None:
    if not is_call(value, "relax.add"):
        return None
    shifted = operand_pair(value)
    scale = graph.call(shifted[0], "relax.multiply") if shifted is not None else None
    scaled = operand_pair(scale) if scale is not None else None
    if shifted is None or scaled is None:
        return None
    divide = graph.call(scaled[0], "relax.divide")
    matched = _normalised(divide, graph) if divide is not None else None
    if matched is None:
        return None
    x, epsilon = matched
    features = shape_of(x)[-1]
    if shifted[1].size != features or scaled[1].size != features or shape_of(x) != shape_of(value):
        return None
    gamma, beta = (literal(array.reshape(features)) for array in (scaled[1], shifted[1]))
    return relax.op.nn.layer_norm(x, gamma, beta, axes=[-1], epsilon=epsilon)


def _normalised(divide: Expr, graph: Graph) -> tuple[Expr, float] | None:
    """(x, eps) of ``(x - mean(x)) / sqrt(mean(square of it) + eps)``."""
    centred, root = divide.args
    x = _centred(centred, graph)
    sqrt = graph.call(root, "relax.sqrt")
    if x is None or sqrt is None:
        return None
    variance, epsilon = _offset(sqrt.args[0], graph)
    squared = _last_axis_mean(variance, graph)
    again = _squared(squared, graph) if squared is not None else None
    if again is None or (again is not centred and _centred(again, graph) != x):
        return None
    return x, epsilon


def _offset(expr: Expr, graph: Graph) -> tuple[Expr, float]:
    """(y, eps) of ``y + eps``; eps 0 where an exporter folded the addition of 1e-12 away."""
    add = graph.call(expr, "relax.add")
    pair = operand_pair(add) if add is not None else None
    if pair is None or pair[1].size != 1:
        return expr, 0.0
    return pair[0], float(pair[1].reshape(()))


def _centred(expr: Expr, graph: Graph) -> Expr | None:
    call = graph.call(expr, "relax.subtract")
    mean = _last_axis_mean(call.args[1], graph) if call is not None else None
    return call.args[0] if mean is not None and mean == call.args[0] else None


def _squared(expr: Expr, graph: Graph) -> Expr | None:
    call = graph.call(expr, "relax.multiply", "relax.power", "relax.square")
    if call is None:
        return None
    if is_call(call, "relax.power"):
        return call.args[0] if scalar(call.args[1]) == 2.0 else None
    if is_call(call, "relax.multiply") and call.args[0] != call.args[1]:
        return None
    return call.args[0]


def _last_axis_mean(expr: Expr, graph: Graph) -> Expr | None:
    """What ``expr`` is the mean of, over its last axis with the axis kept."""
    call = graph.call(expr, "relax.mean")
    if call is None or call.attrs.axis is None or not call.attrs.keepdims:
        return None
    rank = len(shape_of(call.args[0]))
    axes = [int(axis) % rank for axis in call.attrs.axis]
    return call.args[0] if axes == [rank - 1] else None
