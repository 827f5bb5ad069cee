"""Which axes of a reduction are the rows, columns, batch and depth of a matrix product."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tvm import tirx

from gsb_tvm.schedules.float.expressions import Scope
from gsb_tvm.schedules.float.stages import Axis, Stage, uses
from gsb_tvm.schedules.vector import Expr

_CHUNK = 16  # a patch of 3 x 16 x 16: 16 products, then 48 sums, in place of 768 in a row


@dataclass(frozen=True)
class Product:
    """Axes of a product by role, and its factors as expressions of the stage's own variables.

    So are ``places``, the coordinates of an element in the stage's tensor.
    """

    stage: Stage
    places: tuple[Expr, ...]
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    a: Expr
    b: Expr

    @property
    def k(self) -> tuple[Axis, ...]:
        """Contracted axes."""
        return self.stage.reduce

    @property
    def chunks(self) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
        """k in chunks that are summed one by one: rounding grows with what is added in a row.

        Chunks are the last axes, of at least ``_CHUNK`` elements; the others are none where k is
        one chunk.
        """
        at = len(self.k)
        while at > 0 and prod(axis.extent for axis in self.k[at:]) < _CHUNK:
            at -= 1
        if prod(axis.extent for axis in self.k[:at]) == 1:
            at = 0
        return self.k[:at], self.k[at:]


def match(stage: Stage, places: Sequence[Expr], scope: Scope) -> Product | None:
    """``stage`` as a product of at least 2 rows and 2 columns; None where it is none."""
    term = scope.value(stage, stage.vars, [axis.var for axis in stage.reduce])
    if stage.combine != "add" or not isinstance(term, tirx.Mul) or term.ty.dtype != "float32":
        return None
    left = [axis for axis in stage.axes if uses(term.a, axis.var)]
    right = [axis for axis in stage.axes if uses(term.b, axis.var)]
    contracted = all(
        uses(term.a, axis.var) and uses(term.b, axis.var)
        for axis in stage.reduce
        if axis.extent > 1
    )
    batch = tuple(axis for axis in left if axis in right)
    long = [axis for axis in stage.axes if axis.extent > 1]
    only_left = tuple(axis for axis in left if axis not in right)
    only_right = tuple(axis for axis in right if axis not in left)
    if not contracted or len({*left, *right} & {*long}) != len(long):
        return None
    if prod(a.extent for a in only_left) < 2 or prod(a.extent for a in only_right) < 2:
        return None
    if long[-1] in only_right:
        return Product(stage, tuple(places), batch, only_left, only_right, term.a, term.b)
    if long[-1] in only_left:
        return Product(stage, tuple(places), batch, only_right, only_left, term.b, term.a)
    return None
