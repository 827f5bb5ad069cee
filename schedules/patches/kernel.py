"""The loops of a patch embedding.

A block of columns becomes a panel of float32 weights, contiguous along k, which stays in L2 while
all patches pass. A register tile runs over k: a vector of weights for each vector of columns, a
scalar of the image, broadcast, for each patch. Bias and position follow in registers, and results
land where the token stands.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.patches.tiles import chunk_rows, tiles
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.targets import Profile

Expr = Any
Buffer = Any


def kernel(spec: Patches, profile: Profile) -> Any:
    """PrimFunc of ``spec``; arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    tensors = [*spec.inputs(), *spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        with phase() as share:
            _Nest(spec, profile, named, share).write()

    return v.prim_func(tensors, body)


class _Nest:
    """Writes one part's work: strips of patches, and of the constant tokens those of its images."""

    def __init__(
        self, spec: Patches, profile: Profile, named: dict[str, Buffer], share: Share
    ) -> None:
        self.spec, self.named, self.share = spec, named, share
        self.tile = tiles(spec, profile)
        self.count = -(-spec.columns // self.tile.lanes)  # vectors of columns
        self.panel = v.workspace((spec.depth, self.tile.vectors, self.tile.lanes), "float32")

    def write(self) -> None:
        """Emit everything."""
        spec = self.spec
        if spec.prefix:
            with T.If(self.share.is_first), T.Then():
                self._constant_tokens()
        first, end = self.share.span(spec.batch * spec.grid[0])
        whole, rest = divmod(self.count, self.tile.vectors)

        def block(start: Expr, vectors: int) -> None:
            columns = [self._column(start + i) for i in range(vectors)]
            self._fill_panel(columns)
            with T.serial(first, end) as strip:
                batch = v.bind(T.floordiv(strip, spec.grid[0]))
                self._strip(batch, v.bind(T.floormod(strip, spec.grid[0])), columns)

        with T.serial(whole) as i:
            block(v.bind(i * self.tile.vectors), self.tile.vectors)
        if rest:
            block(T.int32(whole * self.tile.vectors), rest)

    def _column(self, vector: Expr) -> Expr:
        """First column of a vector; the last one starts early where columns do not fill it."""
        start, lanes = vector * self.tile.lanes, self.tile.lanes
        if self.spec.columns % lanes == 0:
            return v.bind(start)
        return v.bind(T.min(start, T.int32(self.spec.columns - lanes)))

    def _constant_tokens(self) -> None:
        lanes = self.tile.lanes
        with T.serial(self.spec.batch) as b, T.serial(self.spec.prefix) as i:
            with T.serial(self.count) as vector:
                at = self._column(vector)
                row = v.load(self.named["rows"], i, at, lanes=lanes)
                v.store(self.named["y"], row, b, i, at, lanes=lanes)

    def _fill_panel(self, columns: list[Expr]) -> None:
        lanes = self.tile.lanes
        with T.serial(self.spec.depth) as k:
            for i, at in enumerate(columns):
                weight = v.load(self.named["weight"], k, at, lanes=lanes)
                if self.spec.lattice:
                    scale = v.load(self.named["scale"], at, lanes=lanes)
                    weight = T.cast(weight, f"float32x{lanes}") * scale
                v.store(self.panel, weight, k, i, 0, lanes=lanes)

    def _strip(self, batch: Expr, row: Expr, columns: list[Expr]) -> None:
        """All tiles of one row of patches; the last starts early where they do not fill it."""
        width, patches = self.spec.grid[1], self.tile.patches
        with T.serial(-(-width // patches)) as i:
            first = v.bind(T.min(i * patches, T.int32(width - patches)))
            self._register_tile(batch, row, first, columns)

    def _register_tile(self, batch: Expr, row: Expr, first: Expr, columns: list[Expr]) -> None:
        lanes, vectors = self.tile.lanes, len(columns)
        cells = [(p, i) for p in range(self.tile.patches) for i in range(vectors)]
        total = {cell: v.local((lanes,), "float32") for cell in cells}
        chunk = {cell: v.local((lanes,), "float32") for cell in cells}
        for cell in cells:
            v.store(total[cell], v.splat(0.0, lanes), 0, lanes=lanes)
        height, width = self.spec.patch
        step = chunk_rows(self.spec)
        with T.serial(self.spec.channels) as c, T.serial(height // step) as part:
            for cell in cells:
                v.store(chunk[cell], v.splat(0.0, lanes), 0, lanes=lanes)
            with T.serial(step) as line, T.serial(width) as x:
                y = v.bind(part * step + line)
                k = v.bind((c * height + y) * width + x)
                pixel = (batch, c, row * height + y, first * width + x)
                self._multiply(chunk, k, pixel, vectors)
            for cell in cells:
                value = v.load(total[cell], 0, lanes=lanes) + v.load(chunk[cell], 0, lanes=lanes)
                v.store(total[cell], value, 0, lanes=lanes)
        for p, i in cells:
            token = v.bind(row * self.spec.grid[1] + first + p)
            self._finish(batch, token, columns[i], v.load(total[p, i], 0, lanes=lanes))

    def _multiply(
        self, sums: dict[tuple[int, int], Buffer], k: Expr, pixel: tuple[Expr, ...], vectors: int
    ) -> None:
        lanes, width = self.tile.lanes, self.spec.patch[1]
        weights = [v.bind(v.load(self.panel, k, i, 0, lanes=lanes)) for i in range(vectors)]
        for p in range(self.tile.patches):
            at = (*pixel[:-1], pixel[-1] + p * width)
            value = v.bind(v.splat(self.named["image"][at], lanes))
            for i, weight in enumerate(weights):
                # One rounding for both steps, where the machine has it: a sum in any order.
                term = v.load(sums[p, i], 0, lanes=lanes) + value * weight
                v.store(sums[p, i], term, 0, lanes=lanes)

    def _finish(self, batch: Expr, token: Expr, column: Expr, value: Expr) -> None:
        lanes = self.tile.lanes
        if self.spec.bias:
            value = value + v.load(self.named["bias"], column, lanes=lanes)
        if self.spec.position:
            value = value + v.load(self.named["position"], token, column, lanes=lanes)
        v.store(self.named["y"], value, batch, self.spec.prefix + token, column, lanes=lanes)
