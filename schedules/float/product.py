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
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import TensorLoad

from gsb_tvm.schedules.float import roles, rows
from gsb_tvm.schedules.float.expressions import Scope
from gsb_tvm.schedules.float.groups import split_groups
from gsb_tvm.schedules.float.product_space import Following, Parameters, Space
from gsb_tvm.schedules.float.register_tiles import Writer
from gsb_tvm.schedules.float.stages import Stage, calls, read, rewritten
from gsb_tvm.schedules.float.tiles import Vectors
from gsb_tvm.schedules.float.windows import Window, find
from gsb_tvm.schedules.vector import Buffer, workspace
from gsb_tvm.targets.profile import Profile


def match(func: Any) -> "Products | None":
    """Plan of ``func``; None where its first reduction is not a matrix product.

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
    product = roles.match(stage, places, scope)
    if product is None:
        return None
    before, after = stages[:first], stages[first + 1 :]
    return Products(func, before, product, _window(stage, before), after)


@dataclass(frozen=True)
class Products:
    """A product, and the stages around it.

    Where those after it are more than steps at its own coordinates, their loops are by rule.
    """

    func: Any
    before: list[Stage]
    product: roles.Product
    window: Window | None
    after: list[Stage]
    parameters = Parameters

    def rule(self, profile: Profile) -> Parameters:
        """The register tile of the least estimate."""
        return self._space(profile).rule()

    def space(self, profile: Profile) -> list[Parameters]:
        """Other tiles, and other orders of their loops."""
        return self._space(profile).around()

    def write(self, profile: Profile, parameters: Parameters) -> Any:
        """The scheduled PrimFunc."""
        return rewritten(self.func, lambda buffers: _emit(self, parameters, buffers, profile))

    @property
    def is_followed(self) -> bool:
        """Whether all that follows can be applied to a register tile."""
        return rows.is_elementwise(self.after, self.product.stage.buffer)

    def _space(self, profile: Profile) -> Space:
        following = None
        if self.after and self.is_followed:
            nodes = rows.inlined_sizes(self.after)[self.after[-1].buffer]
            following = Following(nodes, any(calls(stage.value) for stage in self.after))
        return Space(self.product, self.window, following, profile)


def _emit(
    plan: Products, parameters: Parameters, buffers: dict[Any, Buffer], profile: Profile
) -> None:
    product, after, window = plan.product, plan.after, plan.window
    scope = Scope()
    for old, new in buffers.items():
        scope.bind_buffer(old, new)
    for stage in plan.before:
        scope.inline(stage)
    if plan.is_followed:
        for stage in after[:-1]:
            scope.inline(stage)
        last = after[-1] if after else None
        Writer(product, scope, buffers, profile, parameters, last, window).emit()
        return
    result = product.stage.buffer
    outer = {**buffers, result: workspace([int(n) for n in result.shape], "float32")}
    Writer(product, scope, outer, profile, parameters, None, window).emit()
    rows.emit([*plan.before, *after], outer, Vectors(profile.lanes))


def _window(stage: Stage, before: Sequence[Stage]) -> Window | None:
    """The window of a convolution, if one factor is what it reads and nothing else."""
    window = find(stage, before)
    factors = (stage.value.a, stage.value.b) if isinstance(stage.value, tirx.Mul) else ()
    sources = [each.source for each in factors if isinstance(each, TensorLoad)]
    return window if window is not None and window.source in sources else None
