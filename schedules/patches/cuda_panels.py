"""Panels of a patch embedding on CUDA, on their way from the tensors to shared memory."""

from collections.abc import Callable
from functools import partial

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules.cuda.grid import Place, registers, shared
from gsb_tvm.schedules.patches.cuda_tile import PANELS, QUAD, SKEW, Parameters
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load, put, splat, store


class _Panel:
    """A panel in shared memory (PANELS, depth, extent), and a thread's part of the next one.

    Quads of the panel are the threads' in turn; with threads left over, some have none.
    """

    def __init__(self, tile: Parameters, place: Place, extent: int) -> None:
        self._tile, self._place = tile, place
        self._count = tile.chunk * extent // QUAD
        self._rounds = -(-self._count // tile.threads)
        self._next = registers(self._rounds * QUAD, "float32")
        self.shared = shared((PANELS, tile.chunk, extent + SKEW), "float32")

    def _each(self, body: Callable[[int, Expr], None]) -> None:
        """``body(round, quad)`` for this thread's quads."""
        threads = self._tile.threads
        for i in range(self._rounds):
            quad = bind(self._place.thread + i * threads)
            if (i + 1) * threads <= self._count:
                body(i, quad)
            else:
                with T.If(quad < self._count), T.Then():
                    body(i, quad)

    def _keep(self, i: int, value: Expr) -> None:
        store(self._next, value, i * QUAD, lanes=QUAD)

    def _keep_if(self, i: int, conditions: list[Expr], value: Callable[[], Expr]) -> None:
        """A quad where all conditions hold, else zeros."""
        if not conditions:
            self._keep(i, value())
            return
        with T.If(T.And(*conditions) if len(conditions) > 1 else conditions[0]):
            with T.Then():
                self._keep(i, value())
            with T.Else():
                self._keep(i, splat(0.0, QUAD))

    def _one_if(self, at: int, conditions: list[Expr], value: Callable[[], Expr]) -> None:
        put(self._next, T.float32(0), at)
        condition = conditions[0]
        for each in conditions[1:]:
            condition = T.And(condition, each)
        with T.If(condition), T.Then():
            put(self._next, value(), at)


class Images(_Panel):
    """Pixels of the tile's patches: a quad is neighbours of the depth of one patch."""

    def __init__(
        self, spec: Patches, tile: Parameters, place: Place, image: Buffer, first_row: Expr
    ) -> None:
        super().__init__(tile, place, tile.rows)
        self._spec, self._image = spec, image
        self._quads = tile.chunk // QUAD
        self._is_whole = spec.patch[1] % QUAD == spec.image[1] % QUAD == 0
        self._corners: dict[int, tuple[Expr, Expr, Expr]] = {}
        down, across = spec.grid
        last = spec.batch * down * across - 1

        def corner(i: int, quad: Expr) -> None:
            row = bind(T.min(first_row + quad // self._quads, T.int32(last)))
            patch = bind(row % (down * across))
            y, x = patch // across * spec.patch[0], patch % across * spec.patch[1]
            self._corners[i] = bind(row // (down * across)), bind(y), bind(x)

        # Rows beyond the last are read as if they were it, and no one stores their sums.
        for i in range(self._rounds):
            corner(i, place.thread + i * tile.threads)

    def fetch(self, first: Expr) -> None:
        """Read the panel from a depth on into registers."""

        def one(i: int, quad: Expr) -> None:
            k = bind(first + quad % self._quads * QUAD)
            depth = self._spec.depth
            if self._is_whole:
                inside = [k < depth] if depth % self._tile.chunk else []
                self._keep_if(i, inside, lambda: self._pixels(i, k, QUAD))
                return
            for j in range(QUAD):
                self._one_if(i * QUAD + j, [k + j < depth], partial(self._pixels, i, k + j, 1))

        self._each(one)

    def _pixels(self, i: int, k: Expr, lanes: int) -> Expr:
        height, width = self._spec.patch
        batch, y, x = self._corners[i]
        line = bind(k // width)
        index = batch, line // height, y + line % height, x + k % width
        return load(self._image, *index, lanes=lanes)

    def put(self, panel: Expr) -> None:
        """Write what was read, the depth first."""

        def one(i: int, quad: Expr) -> None:
            for j in range(QUAD):
                k, row = quad % self._quads * QUAD + j, quad // self._quads
                put(self.shared, self._next[i * QUAD + j], panel, k, row)

        self._each(one)


class Weights(_Panel):
    """Weights of the tile's columns: a quad is neighbouring columns."""

    def __init__(
        self,
        spec: Patches,
        tile: Parameters,
        place: Place,
        named: dict[str, Buffer],
        first_column: Expr,
    ) -> None:
        super().__init__(tile, place, tile.columns)
        self._spec, self._t, self._first_column = spec, named, first_column
        self._quads = tile.columns // QUAD

    def fetch(self, first: Expr) -> None:
        """Read the panel from a depth on into registers."""
        spec, tile = self._spec, self._tile

        def one(i: int, quad: Expr) -> None:
            k = bind(first + quad // self._quads)
            column = bind(self._first_column + quad % self._quads * QUAD)
            inside = [k < spec.depth] if spec.depth % tile.chunk else []
            if spec.columns % QUAD == 0:
                inside += [column < spec.columns] if spec.columns % tile.columns else []
                self._keep_if(i, inside, lambda: self._weights(k, column, QUAD))
                return
            for j in range(QUAD):
                self._one_if(
                    i * QUAD + j,
                    [*inside, column + j < spec.columns],
                    partial(self._weights, k, column + j, 1),
                )

        self._each(one)

    def _weights(self, k: Expr, column: Expr, lanes: int) -> Expr:
        weights = load(self._t["weight"], k, column, lanes=lanes)
        if not self._spec.lattice:
            return weights
        wide = T.cast(weights, "float32" if lanes == 1 else f"float32x{lanes}")
        return wide * load(self._t["scale"], column, lanes=lanes)

    def put(self, panel: Expr) -> None:
        """Write what was read."""

        def one(i: int, quad: Expr) -> None:
            k, column = quad // self._quads, quad % self._quads * QUAD
            found = load(self._next, i * QUAD, lanes=QUAD)
            store(self.shared, found, panel, k, column, lanes=QUAD)

        self._each(one)
