"""Cancel chains of reshapes and transposes that end where they began."""

import numpy as np
from tvm.ir.transform import Pass

from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.rewriting import Expr, Graph, rewrite_pass
from gsb_tvm.passes.views import VIEWS, view_index, view_source


def SimplifyViews() -> Pass:
    """Replace a chain of views by its source where no element moves.

    Before  y = reshape(permute(permute(reshape(x))))    the same shape and order as x
    After   x
    Requires   the chain's index map is the identity and the shapes agree
    Leaves alone   chains that move an element or change the shape
    Exact   yes
    Source   docs/architecture.md, The algebra: heads are views of tokens
    """
    return rewrite_pass("SimplifyViews", lambda: lambda _var, value, g: _simplify(value, g))


def _simplify(value: Expr, graph: Graph) -> Expr | None:
    if not any(is_call(value, name) for name in VIEWS) or is_call(value, "relax.split"):
        return None
    source, calls = view_source(value.args[0], graph)
    calls = [*calls, (value, 0)]
    for start in range(len(calls)):
        at = source if start == 0 else calls[start][0].args[0]
        if shape_of(at) != shape_of(value):
            continue
        index = view_index(at, calls[start:])
        if (index.reshape(-1) == np.arange(index.size)).all():
            return at
    return None
