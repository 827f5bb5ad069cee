"""A patch embedding where every factor of a multiply-add is a whole vector (x86).

A register tile runs over k: a vector of weights for each vector of columns, a scalar of the image,
broadcast, for each patch.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.patches.columns import Columns
from gsb_tvm.schedules.patches.space import Parameters
from gsb_tvm.schedules.sharing import Share, phase

Expr = Any
Buffer = Any


def kernel(spec: Patches, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``; arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    tensors = [*spec.inputs(), *spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        with phase() as share:
            _Nest(spec, parameters, named, share).write()

    return v.prim_func(tensors, body)


class _Nest:
    """Writes one part's work: strips of patches, and of the constant tokens those of its images."""

    def __init__(
        self, spec: Patches, parameters: Parameters, named: dict[str, Buffer], share: Share
    ) -> None:
        self.spec, self.image, self.share = spec, named["image"], share
        self.tile = parameters
        self.columns = Columns(spec, named, self.tile)

    def write(self) -> None:
        """Emit everything."""
        spec = self.spec
        if spec.prefix:
            with T.If(self.share.is_first), T.Then():
                self.columns.constant_tokens()
        first, end = self.share.span(spec.batch * spec.grid[0])

        def strips(columns: list[Expr]) -> None:
            with T.serial(first, end) as strip:
                batch = v.bind(T.floordiv(strip, spec.grid[0]))
                self._strip(batch, v.bind(T.floormod(strip, spec.grid[0])), columns)

        self.columns.blocks(strips)

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
        step = self.tile.chunk // width
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
            self.columns.finish(batch, token, columns[i], v.load(total[p, i], 0, lanes=lanes))

    def _multiply(
        self, sums: dict[tuple[int, int], Buffer], k: Expr, pixel: tuple[Expr, ...], vectors: int
    ) -> None:
        lanes, width = self.tile.lanes, self.spec.patch[1]
        weights = self.columns.weights(k, vectors)
        for p in range(self.tile.patches):
            at = (*pixel[:-1], pixel[-1] + p * width)
            value = v.bind(v.splat(self.image[at], lanes))
            for i, weight in enumerate(weights):
                # One rounding for both steps, where the machine has it: a sum in any order.
                term = v.load(sums[p, i], 0, lanes=lanes) + value * weight
                v.store(sums[p, i], term, 0, lanes=lanes)
