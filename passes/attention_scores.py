"""Match what lies between packed queries and keys and the attention that masks compare."""

from dataclasses import dataclass

import numpy as np

from gsb_tvm.dialect.attention_specs import BIAS_PADDING
from gsb_tvm.dialect.bits import Floats, Rows
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.packing import PlaneSource, product_scale, sign_by_token
from gsb_tvm.passes.rewriting import Expr, Graph, operand_pair, scalar


@dataclass(frozen=True)
class Scores:
    """Packed queries and keys (``rows``), and what turns their products into ``p + bias``.

    ``x = fl(fl(dot * scale) * factor)``, without factor where it is None; ``bias`` is flat and
    padded at its end, as :class:`gsb_tvm.dialect.specs.AttentionPlanes` takes it. ``name`` is the
    product's in the model.
    """

    name: str
    rows: Rows
    query: PlaneSource
    key: PlaneSource
    scale: float
    factor: float | None
    bias: Floats | None

    @property
    def total(self) -> float:
        """Product of scale and factor."""
        return self.scale * (1.0 if self.factor is None else self.factor)


def match_scores(p: Expr, rows: Rows, graph: Graph) -> Scores | None:
    """Match ``softmax(fl(gsb.matmul(q, k) * f)) + bias`` over the keys."""
    bias: Floats | None = None
    add = graph.call(p, "relax.add")
    if add is not None:
        pair = operand_pair(add)
        if pair is None:
            return None
        p, bias = pair[0], _flat_bias(pair[1], rows)
        if bias is None:
            return None
    softmax = graph.call(p, "relax.nn.softmax")
    if softmax is None or int(softmax.attrs.axis) not in (-1, 3):
        return None
    x, factor = _factor(softmax.args[0], graph)
    product = graph.call(x, "gsb.matmul")
    if product is None:
        return None
    queries, query_scale, keys, key_scale = (list(part.fields) for part in product.args)
    scale = product_scale(query_scale[0], key_scale[0])
    if len(queries) != 1 or len(keys) != 1 or scale.size != 1:
        return None
    width = shape_of(queries[0])[-1]
    q_rows = Rows(rows.batch, rows.tokens, rows.groups, width)
    if shape_of(x) != (rows.batch, rows.groups, rows.tokens, rows.tokens):
        return None
    query = sign_by_token(queries[0], q_rows, graph, transposed=False)
    key = sign_by_token(keys[0], q_rows, graph, transposed=True)
    if query is None or key is None:
        return None
    return Scores(x.name, q_rows, query, key, float(scale.reshape(())), factor, bias)


def _flat_bias(array: Floats, rows: Rows) -> Floats | None:
    heads, tokens = rows.groups, rows.tokens
    shape = (1,) * max(0, 4 - array.ndim) + array.shape
    if len(shape) != 4 or shape[0] != 1 or shape[2:] != (tokens, tokens):
        return None
    flat = np.zeros(heads * tokens * tokens + BIAS_PADDING, dtype=np.float32)
    flat[:-BIAS_PADDING] = np.broadcast_to(array, (1, heads, tokens, tokens)).reshape(-1)
    return flat


def _factor(x: Expr, graph: Graph) -> tuple[Expr, float | None]:
    """Strip one multiplication by a constant; a division where its reciprocal is exact."""
    call = graph.call(x, "relax.multiply", "relax.divide")
    pair = operand_pair(call) if call is not None else None
    if call is None or pair is None or pair[1].size != 1:
        return x, None
    value = float(pair[1].reshape(()))
    if is_call(call, "relax.multiply"):
        return pair[0], value
    mantissa, _ = np.frexp(value)
    if scalar(call.args[1]) is None or mantissa != 0.5 or value <= 0:
        return x, None
    return pair[0], 1.0 / value
