"""Matrix products: dense layers, batched products, convolutions as products.

The stage ``C[b, m, n] = sum_k A[b, m, k] * B[b, k, n]`` is found by which axes its two factors
depend on; b, m, n and k may each be several axes (the k of a convolution are channel and window,
the b of a grouped one its groups).
n is the side with the last axis of C, so that results are stored in vectors.

1. A becomes scalars that are broadcast: read in place where it is a tensor, else (a weight
   stored as int8 and a scale) computed once into a workspace.
2. B is copied into panels of a tile's columns, contiguous along k: whatever it is computed from,
   and whatever its strides, is met once. Where n is several axes (the positions of a convolution)
   it is first written out as a matrix. Where one tile has all rows, B is read in place.
3. A register tile of sums runs over k; what follows the product element by element is applied to
   the tile's sums before they are stored.

Ragged rows and columns overlap their neighbours, see :mod:`.loops`.
"""

from collections.abc import Sequence
from typing import Any

from tvm import tirx
from tvm.ir import TensorLoad

from gsb_tvm.schedules.float import rows
from gsb_tvm.schedules.float.expressions import Scope
from gsb_tvm.schedules.float.groups import split_groups
from gsb_tvm.schedules.float.register_tiles import Writer
from gsb_tvm.schedules.float.roles import Product, match
from gsb_tvm.schedules.float.stages import Stage, calls, read, rewritten
from gsb_tvm.schedules.float.windows import Window, find
from gsb_tvm.schedules.vector import Buffer, workspace
from gsb_tvm.targets.profile import Profile

_UNROLLED_NODES = 24


def apply(func: Any, profile: Profile) -> Any | None:
    """Scheduled form of ``func``; None where its first reduction is not a matrix product.

    Nor where another than the last stage writes an argument of ``func``.
    """
    stages = read(func)
    if stages is None:
        return None
    reductions = [at for at, stage in enumerate(stages) if stage.reduce]
    inner_output = any(
        stage.buffer.same_as(param) for stage in stages[:-1] for param in func.params
    )
    if not reductions or inner_output:
        return None
    first = reductions[0]
    scope = Scope()
    for param in func.params:
        scope.bind_buffer(param, param)
    for stage in stages[:first]:
        scope.inline(stage)
    stage, places = split_groups(stages[first])
    product = match(stage, places, scope)
    if product is None:
        return None
    before, after = stages[:first], stages[first + 1 :]
    window = _window(stage, before)
    return rewritten(func, lambda buffers: _emit(before, product, window, after, buffers, profile))


def _emit(
    before: Sequence[Stage],
    product: Product,
    window: Window | None,
    after: list[Stage],
    buffers: dict[Any, Buffer],
    profile: Profile,
) -> None:
    scope = Scope()
    for old, new in buffers.items():
        scope.bind_buffer(old, new)
    for stage in before:
        scope.inline(stage)
    result = product.stage.buffer
    if rows.is_elementwise(after, result):
        for stage in after[:-1]:
            scope.inline(stage)
        last = after[-1] if after else None
        Writer(product, scope, buffers, profile, last, window=window, long=_is_long(after)).emit()
        return
    matrix = workspace([int(n) for n in result.shape], "float32")
    Writer(product, scope, {**buffers, result: matrix}, profile, None, window=window).emit()
    rows.emit([*before, *after], {**buffers, result: matrix}, profile.lanes)


def _window(stage: Stage, before: Sequence[Stage]) -> Window | None:
    """The window of a convolution, if one factor is what it reads and nothing else."""
    window = find(stage, before)
    factors = (stage.value.a, stage.value.b) if isinstance(stage.value, tirx.Mul) else ()
    sources = [each.source for each in factors if isinstance(each, TensorLoad)]
    return window if window is not None and window.source in sources else None


def _is_long(after: Sequence[Stage]) -> bool:
    """Whether what follows the product should stand once per tile, not once per row."""
    if any(calls(stage.value) for stage in after):
        return True
    return bool(after) and rows.inlined_sizes(after)[after[-1].buffer] > _UNROLLED_NODES
