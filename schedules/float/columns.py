"""Where the columns of a product, its factor B, are read: in place, or written out first."""

from collections.abc import Sequence
from math import prod

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float.expressions import Scope, flat, index
from gsb_tvm.schedules.float.loops import extents, vector_start
from gsb_tvm.schedules.float.parts import coordinates, nest, spread
from gsb_tvm.schedules.float.planes import Planes
from gsb_tvm.schedules.float.roles import Product
from gsb_tvm.schedules.float.stages import Axis
from gsb_tvm.schedules.float.tiles import fitting_lanes
from gsb_tvm.schedules.float.windows import Window
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, store, workspace

Env = dict[Expr, Expr]


class InPlace:
    """B[b, k, n] as the product computes it.

    ``count`` is the number of columns, of one block where ``blocks`` are read one by one.
    """

    blocks = 1
    is_prepared = False

    def __init__(self, product: Product, scope: Scope) -> None:
        self.product = product
        self.scope = scope
        self.count = prod(extents(product.n))
        self._batch: Env = {}

    def prepare(self, share: Share) -> None:
        """Do a part of what comes before the product, in a phase of its own."""

    def enter(self, batch: Env, flat_batch: Expr, block: Expr) -> None:
        """Go to a block of columns."""
        self._batch = batch

    def value(self, k: Expr, env: Env, column: Expr) -> Expr:
        """B at a column; ``k`` is the flat form of the coordinates ``env``."""
        return self.scope.evaluate(self.product.b, {**self._batch, **env, **self.at(column)})

    def at(self, column: Expr) -> Env:
        """Coordinates of a column."""
        return split(self.product.n, column)


class Written(InPlace):
    """B written out as a matrix for each b before the product, whatever its strides."""

    is_prepared = True

    def __init__(self, product: Product, scope: Scope, lanes: int) -> None:
        super().__init__(product, scope)
        self._lanes = lanes
        self._matrix = matrix_of(product.batch, product.k, product.n)
        self._flat_batch = index(0)

    def prepare(self, share: Share) -> None:
        """Write a part of the matrix."""
        p = self.product
        write_matrix(self._matrix, (p.batch, p.k, p.n), p.b, self.scope, self._lanes, share)

    def enter(self, batch: Env, flat_batch: Expr, block: Expr) -> None:
        """Go to a matrix."""
        self._flat_batch = flat_batch

    def value(self, k: Expr, env: Env, column: Expr) -> Expr:
        """B at a column."""
        return self._matrix[self._flat_batch, k, column]


class Patches(InPlace):
    """B of a convolution: windows of images, written out for a block of rows at a time.

    The images of all channels become padded planes before the product (:mod:`.planes`). A block,
    some rows of positions of one image, is then copied from them row by row into a matrix of one
    tap of one channel each, which stays in the second cache while all rows of A pass.
    """

    is_prepared = True

    def __init__(
        self, product: Product, scope: Scope, window: Window, lanes: int, rows: int
    ) -> None:
        super().__init__(product, scope)
        self._window, self._lanes = window, lanes
        self._planes = Planes(window, lanes)
        *self._outer, self._y, self._x = product.n
        height, width = self._y.extent, self._x.extent
        depth = prod(extents(product.k))
        self._rows = rows
        self._tiles = -(-height // self._rows)
        self.blocks = self._tiles * prod(extents(self._outer))
        self.count = self._rows * width
        self._lead = [int(n) for n in window.source.shape[:-2]]
        self._images = workspace((prod(self._lead), self._planes.room), "float32")
        self._depth = depth

    def prepare(self, share: Share) -> None:
        """Copy a part of the images."""
        with spread([prod(self._lead)], share) as (image,):
            self._planes.clear(self._images, [image])
            self._planes.fill(self._images, [image], self.scope, coordinates(image, self._lead))

    def allocate(self) -> None:
        """Allocate a part's own matrix, whose rows do not fall on the same lines of a cache."""
        pitch = -(-self.count // self._lanes) * self._lanes
        pitch += self._lanes if pitch * 4 % 1024 == 0 else 0
        self._matrix = workspace((self._depth, pitch), "float32")

    def enter(self, batch: Env, flat_batch: Expr, block: Expr) -> None:
        """Write the matrix of a block."""
        *outer, tile = coordinates(block, [*extents(self._outer), self._tiles])
        self._first = bind(vector_start(tile, self._y.extent, self._rows))
        self._at = dict(zip((axis.var for axis in self._outer), outer, strict=True))
        window, k = self._window, self.product.k
        with nest(extents(k)) as at:
            env = {**batch, **self._at, **_env(k, at)}
            lead = [self.scope.evaluate(each, env) for each in window.lead]
            image = bind(flat(self._lead, lead))
            v, u = (
                index(0) if slide.tap is None else env[slide.tap.var]
                for slide in (window.y, window.x)
            )
            start = bind(self._planes.tap(v, u) + self._first * index(self._planes.pitch))
            row = bind(flat(extents(k), at))
            lanes = fitting_lanes(self._x.extent, self._lanes)
            with nest([self._rows, -(-self._x.extent // lanes)]) as (y, number):
                x = vector_start(number, self._x.extent, lanes)
                pixels = load(
                    self._images, image, start + y * index(self._planes.pitch) + x, lanes=lanes
                )
                store(self._matrix, pixels, row, y * index(self._x.extent) + x, lanes=lanes)

    def value(self, k: Expr, env: Env, column: Expr) -> Expr:
        """B at a column of the block."""
        return self._matrix[k, column]

    def at(self, column: Expr) -> Env:
        """Coordinates of a column of the block."""
        within = split([Axis(self._y.var, self._rows), self._x], column)
        return {**self._at, **within, self._y.var: self._first + within[self._y.var]}


def matrix_of(batch: Sequence[Axis], rows: Sequence[Axis], columns: Sequence[Axis]) -> Buffer:
    """Scratch for a factor of a product, a matrix for each b."""
    return workspace([prod(extents(axes)) for axes in (batch, rows, columns)], "float32")


def write_matrix(
    matrix: Buffer,
    axes: tuple[Sequence[Axis], Sequence[Axis], Sequence[Axis]],
    factor: Expr,
    scope: Scope,
    lanes: int,
    share: Share,
) -> None:
    """Write a part of ``factor`` out as matrices, in vectors along the last of its axes."""
    *outer, last = [axis for group in axes for axis in group]
    lanes = fitting_lanes(last.extent, lanes)
    with spread([*extents(outer), -(-last.extent // lanes)], share) as (*at, number):
        start = vector_start(number, last.extent, lanes)
        with T.vectorized(index(0), index(lanes)) as lane:
            env = _env(outer, at) | {last.var: start + lane}
            place = [flat(extents(group), [env[axis.var] for axis in group]) for group in axes]
            T.buffer_store(matrix, scope.evaluate(factor, env), place)


def split(axes: Sequence[Axis], position: Expr) -> Env:
    """Coordinates of a row-major position: inverse of :func:`.flat`."""
    return _env(axes, coordinates(position, extents(axes)))


def _env(axes: Sequence[Axis], at: Sequence[Expr]) -> Env:
    return {axis.var: i for axis, i in zip(axes, at, strict=True)}
