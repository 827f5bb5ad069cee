"""Matrix products: dense layers, batched products, convolutions as products.

The stage ``C[b, m, n] = sum_k A[b, m, k] * B[b, k, n]`` is found by which axes its two factors
depend on; b, m, n and k may each be several axes (the k of a convolution are channel and window).
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

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import TensorLoad
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float import rows
from gsb_tvm.schedules.float.expressions import Scope, index
from gsb_tvm.schedules.float.loops import nest, vectors
from gsb_tvm.schedules.float.stages import Axis, Stage, calls, loads, read, rewritten, uses
from gsb_tvm.schedules.float.tiles import fitting_lanes, product_tile
from gsb_tvm.schedules.vector import (
    Buffer,
    Expr,
    bind,
    load,
    local,
    splat,
    store,
    workspace,
)
from gsb_tvm.targets.profile import Profile

_FUSED_NODES = 200  # beyond, what follows a product becomes loops of its own
_UNROLLED_NODES = 24


@dataclass(frozen=True)
class Product:
    """Axes of a product by role, and its factors as expressions of the stage's own variables."""

    stage: Stage
    batch: tuple[Axis, ...]
    m: tuple[Axis, ...]
    n: tuple[Axis, ...]
    a: Expr
    b: Expr

    @property
    def k(self) -> tuple[Axis, ...]:
        """Contracted axes."""
        return self.stage.reduce


def apply(func: Any, profile: Profile) -> Any | None:
    """Scheduled form of ``func``; None where it does not hold exactly one matrix product."""
    stages = read(func)
    if stages is None:
        return None
    reductions = [at for at, stage in enumerate(stages) if stage.reduce]
    if not reductions:
        return None
    first = reductions[0]
    scope = Scope()
    for param in func.params:
        scope.bind_buffer(param, param)
    for stage in stages[:first]:
        scope.inline(stage)
    product = match(stages[first], scope)
    if product is None:
        return None
    before, after = stages[:first], stages[first + 1 :]
    return rewritten(func, lambda buffers: _emit(before, product, after, buffers, profile))


def match(stage: Stage, scope: Scope) -> Product | None:
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
        return Product(stage, batch, only_left, only_right, term.a, term.b)
    if long[-1] in only_left:
        return Product(stage, batch, only_right, only_left, term.b, term.a)
    return None


def _emit(
    before: Sequence[Stage],
    product: Product,
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
    if _is_elementwise(after, result, buffers):
        for stage in after[:-1]:
            scope.inline(stage)
        last = after[-1] if after else None
        _Writer(product, scope, buffers, profile, last, long=_is_long(after)).emit()
        return
    matrix = workspace(product.stage.shape, "float32")
    _Writer(product, scope, {**buffers, result: matrix}, profile, None).emit()
    rows.emit([*before, *after], {**buffers, result: matrix}, profile.lanes)


def _is_elementwise(after: Sequence[Stage], result: Buffer, buffers: dict[Any, Buffer]) -> bool:
    """Whether the stages after the product read it at their own coordinates only, and are few."""
    if any(stage.reduce for stage in after):
        return False
    if after and rows.inlined_sizes(after)[after[-1].buffer] > _FUSED_NODES:
        return False
    inner = {stage.buffer for stage in after[:-1]} | {result}
    for stage in after:
        for found in loads(stage.value):
            if found.source not in inner:
                continue
            same = zip(found.indices, stage.axes, strict=False)
            if len(found.indices) != len(stage.axes) or not all(
                i.same_as(axis.var) or axis.extent == 1 for i, axis in same
            ):
                return False
    return True


def _is_long(after: Sequence[Stage]) -> bool:
    """Whether what follows the product should stand once per tile, not once per row."""
    if any(calls(stage.value) for stage in after):
        return True
    return bool(after) and rows.inlined_sizes(after)[after[-1].buffer] > _UNROLLED_NODES


class _Writer:
    """Writes one product and what follows it element by element."""

    def __init__(
        self,
        product: Product,
        scope: Scope,
        buffers: dict[Any, Buffer],
        profile: Profile,
        last: Stage | None,
        *,
        long: bool = False,
    ) -> None:
        self._p = product
        self._scope = scope
        self._last = last
        self._long = long
        self._out = buffers[(last or product.stage).buffer]
        self._rows = prod(axis.extent for axis in product.m)
        self._columns = prod(axis.extent for axis in product.n)
        self._depth = prod(axis.extent for axis in product.k)
        self._lanes = fitting_lanes(self._columns, profile.lanes)
        registers = 32 if profile.has_avx512 or profile.has_neon else 16
        self._vectors = -(-self._columns // self._lanes)
        self._tile = product_tile(self._rows, self._vectors, registers)

    def emit(self) -> None:
        p, (height, width) = self._p, self._tile
        whole, rest = divmod(self._vectors, width)
        self._a_matrix = None if _in_place(p.a) else self._matrix(self._rows, self._depth)
        long = [axis for axis in p.n if axis.extent > 1]
        self._b_matrix = None if len(long) == 1 else self._matrix(self._depth, self._columns)
        self._panel = (
            workspace((self._depth, width, self._lanes), "float32") if self._rows > height else None
        )
        with nest(p.batch) as at:
            self._batch = dict(zip((axis.var for axis in p.batch), at, strict=True))
            if self._a_matrix is not None:
                self._fill(self._a_matrix, p.m, p.k, self._at(p.a))
            if self._b_matrix is not None:
                self._fill(self._b_matrix, p.k, p.n, self._at(p.b))
            if whole:
                with T.serial(index(0), index(whole)) as tile:
                    self._columns_tile(tile * index(width), width)
            if rest:
                self._columns_tile(index(whole * width), rest)

    def _matrix(self, rows: int, columns: int) -> Buffer:
        return workspace((rows, columns), "float32")

    def _at(self, factor: Expr) -> Callable[[dict[Any, Expr]], Expr]:
        return lambda env: self._scope.evaluate(factor, {**self._batch, **env})

    def _fill(
        self,
        matrix: Buffer,
        rows: Sequence[Axis],
        columns: Sequence[Axis],
        factor: Callable[[dict[Any, Expr]], Expr],
    ) -> None:
        """Write ``factor`` out as a matrix, in vectors along the last of ``columns``."""
        *outer, last = columns
        lanes = fitting_lanes(last.extent, self._lanes)
        with nest([*rows, *outer]) as at, vectors(last.extent, lanes) as start:
            row, column = at[: len(rows)], [*at[len(rows) :], start]
            with T.vectorized(index(0), index(lanes)) as lane:
                env = _env([*rows, *outer], at) | {last.var: start + lane}
                place = [_flat(rows, row), _flat(columns, column) + lane]
                T.buffer_store(matrix, factor(env), place)

    def _starts(self, first: Expr, width: int) -> list[Expr]:
        """First column of each vector of a tile."""
        starts = [(first + index(v)) * index(self._lanes) for v in range(width)]
        if self._columns % self._lanes == 0:
            return starts
        return [bind(T.min(start, index(self._columns - self._lanes))) for start in starts]

    def _columns_tile(self, first: Expr, width: int) -> None:
        """All rows of ``width`` vectors of columns."""
        starts = self._starts(first, width)
        if self._panel is not None:
            with self._deep() as (k, env):
                for v, start in enumerate(starts):
                    with T.vectorized(index(0), index(self._lanes)) as lane:
                        T.buffer_store(self._panel, self._b(k, env, start + lane), [k, v, lane])
        with vectors(self._rows, self._tile[0]) as row:
            self._register_tile(row, starts)

    @contextmanager
    def _deep(self) -> Iterator[tuple[Expr, dict[Any, Expr]]]:
        """Loops over k: its flat index and its coordinates."""
        with nest(self._p.k) as at:
            yield bind(_flat(self._p.k, at)), _env(self._p.k, at)

    def _b(self, k: Expr, env: dict[Any, Expr], column: Expr) -> Expr:
        if self._b_matrix is not None:
            return self._b_matrix[k, column]
        return self._at(self._p.b)({**env, **_split(self._p.n, column)})

    def _a(self, k: Expr, env: dict[Any, Expr], row: Expr) -> Expr:
        if self._a_matrix is not None:
            return self._a_matrix[row, k]
        return self._at(self._p.a)({**env, **_split(self._p.m, row)})

    def _register_tile(self, row: Expr, starts: Sequence[Expr]) -> None:
        height, lanes = self._tile[0], self._lanes
        acc = local((height, len(starts), lanes), "float32")
        tile = [(i, v) for i in range(height) for v in range(len(starts))]
        for i, v in tile:
            store(acc, splat(0.0, lanes), i, v, 0, lanes=lanes)
        with self._deep() as (k, env):
            columns = local((len(starts), lanes), "float32")
            for v, start in enumerate(starts):
                with T.vectorized(index(0), index(lanes)) as lane:
                    value = (
                        self._b(k, env, start + lane)
                        if self._panel is None
                        else self._panel[k, v, lane]
                    )
                    T.buffer_store(columns, value, [v, lane])
            for i in range(height):
                a = bind(splat(self._a(k, env, row + index(i)), lanes))
                for v in range(len(starts)):
                    term = a * load(columns, v, 0, lanes=lanes)
                    store(acc, load(acc, i, v, 0, lanes=lanes) + term, i, v, 0, lanes=lanes)
        if not self._long:
            for i, v in tile:
                self._finish(acc, i, v, row, starts[v])
            return
        # Sums leave the registers, so that long code stands once and not once per row.
        sums = local((height, len(starts), lanes), "float32")
        for i, v in tile:
            store(sums, load(acc, i, v, 0, lanes=lanes), i, v, 0, lanes=lanes)
        with T.serial(index(0), index(height)) as i:
            for v, start in enumerate(starts):
                self._finish(sums, i, v, row, start)

    def _finish(self, sums: Buffer, i: Any, v: int, row: Expr, start: Expr) -> None:
        """Apply what follows the product to one vector of sums, and store it."""
        p = self._p
        with T.vectorized(index(0), index(self._lanes)) as lane:
            env = {**self._batch, **_split(p.m, row + i), **_split(p.n, start + lane)}
            at = [env.get(axis.var, index(0)) for axis in p.stage.axes]
            total = sums[i, v, lane]
            if self._last is None:
                T.buffer_store(self._out, total, at)
            else:
                self._scope.sources[p.stage.buffer] = lambda _: total
                T.buffer_store(self._out, self._scope.value(self._last, at), at)


def _in_place(factor: Expr) -> bool:
    return isinstance(factor, TensorLoad)


def _env(axes: Sequence[Axis], at: Sequence[Expr]) -> dict[Any, Expr]:
    return {axis.var: i for axis, i in zip(axes, at, strict=True)}


def _flat(axes: Sequence[Axis], at: Sequence[Expr]) -> Expr:
    """Row-major position of coordinates ``at``."""
    total = index(0)
    for axis, i in zip(axes, at, strict=True):
        total = total * index(axis.extent) + i
    return total


def _split(axes: Sequence[Axis], position: Expr) -> dict[Any, Expr]:
    """Coordinates of a row-major position: inverse of :func:`_flat`."""
    env = {}
    step = prod(axis.extent for axis in axes)
    for number, axis in enumerate(axes):
        step //= axis.extent
        value = position if step == 1 else tirx.floordiv(position, index(step))
        env[axis.var] = value if number == 0 else tirx.floormod(value, index(axis.extent))
    return env
