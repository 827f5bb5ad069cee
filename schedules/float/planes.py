"""Images with their padding, split by stride: where a window's neighbours are contiguous.

Element (Y, X) of the padded image stands in plane (Y % stride, X % stride) at (Y // stride,
X // stride). What one tap of the window reads for neighbouring positions is contiguous then, at
any stride, and a position one row further is ``pitch`` elements further: a vector of positions may
run over the end of a row, where its lanes read what no position needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float.expressions import Scope, index
from gsb_tvm.schedules.float.loops import vector_start
from gsb_tvm.schedules.float.parts import nest
from gsb_tvm.schedules.float.tiles import fitting_lanes
from gsb_tvm.schedules.float.windows import Window
from gsb_tvm.schedules.vector import Buffer, Expr, load, local, put, splat, store


@dataclass(frozen=True)
class Planes:
    """Layout of one image; ``lanes`` of the machine."""

    window: Window
    lanes: int

    @property
    def pitch(self) -> int:
        """Elements from a position to the one below it."""
        return self.window.x.phase_size

    @property
    def size(self) -> int:
        """Elements of all planes of an image."""
        y, x = self.window.y, self.window.x
        return y.stride * x.stride * y.phase_size * self.pitch

    @property
    def room(self) -> int:
        """Elements of memory for an image: its last vector of positions reads behind its planes."""
        return self.size + self.lanes

    def tap(self, v: Expr, u: Expr) -> Expr:
        """Where tap (v, u) of the window at position 0 stands."""
        y, x = self.window.y, self.window.x
        row, column = v * index(y.dilation), u * index(x.dilation)
        return self._place(row, column % index(x.stride), column // index(x.stride))

    def _place(self, row: Expr, phase: Expr, column: Expr) -> Expr:
        """Element of a row of the padded image that is ``column``-th of its phase."""
        y, x = self.window.y, self.window.x
        plane = (row % index(y.stride)) * index(x.stride) + phase
        return (plane * index(y.phase_size) + row // index(y.stride)) * index(self.pitch) + column

    def clear(self, planes: Buffer, at: Sequence[Expr]) -> None:
        """Write the padding everywhere, behind the planes too.

        Lanes there count for nothing, but if what lies in memory happens to be denormal, a multiply
        takes a hundred times as long: images of 7 x 7 took 6 times as long.
        """
        lanes = fitting_lanes(self.room, self.lanes)
        with nest([-(-self.room // lanes)]) as (number,):
            start = vector_start(number, self.room, lanes)
            store(planes, splat(self.window.fill, lanes), *at, start, lanes=lanes)

    def fill(self, planes: Buffer, at: Sequence[Expr], scope: Scope, image: Sequence[Expr]) -> None:
        """Write the image whose coordinates in the source are ``image``, within its padding."""
        y, x = self.window.y, self.window.x

        def pixel(row: Expr, column: Expr) -> Expr:
            place = [*image, row + index(y.before), column + index(x.before)]
            env = dict(zip(self.window.variables, place, strict=True))
            return scope.evaluate(self.window.pixel, env)

        def target(row: Expr, first: int) -> Expr:
            """Where element ``first`` of a row stands."""
            first += x.before
            phase, column = index(first % x.stride), index(first // x.stride)
            return self._place(row + index(y.before), phase, column)

        with nest([y.size]) as (row,):
            _split_row(
                x.size,
                x.stride,
                self.lanes,
                lambda column: pixel(row, column),
                lambda first, value, start, lanes: store(
                    planes, value, *at, target(row, first) + start, lanes=lanes
                ),
            )
            for column in range(x.size // x.stride * x.stride, x.size):
                put(planes, pixel(row, index(column)), *at, target(row, column))


def _split_row(
    size: int,
    stride: int,
    lanes: int,
    pixel: Callable[[Expr], Expr],
    write: Callable[[int, Expr, Expr, int], None],
) -> None:
    """Read a row in vectors and write every ``stride``-th element together."""
    groups = size // stride
    if groups == 0:
        return
    lanes = fitting_lanes(groups, lanes)
    with nest([-(-groups // lanes)]) as (number,):
        start = vector_start(number, groups, lanes)
        joined = local((lanes * stride,), "float32")
        with T.vectorized(index(0), index(lanes * stride)) as lane:
            T.buffer_store(joined, pixel(start * index(stride) + lane), [lane])
        vector = load(joined, index(0), lanes=lanes * stride)
        for first in range(stride):
            part = vector if stride == 1 else _every(vector, first, stride, lanes)
            write(first, part, start, lanes)


def _every(vector: Expr, first: int, stride: int, lanes: int) -> Expr:
    return T.Shuffle([vector], [tirx.const(first + stride * i, "int32") for i in range(lanes)])
