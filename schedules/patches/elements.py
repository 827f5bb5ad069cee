"""A patch embedding where a multiply-add takes one of its factors from any lane of a vector (Arm).

Nothing is broadcast then: four patches' pixels are one load for four multiply-adds and more. Pixels
are written out first, tile by tile, ``[k][patch]``; a tile may begin at any patch of an image. Per
step of k, a tile of 14 patches and two vectors of columns takes 28 multiply-adds and three loads.

Each part writes the pixels of its own tiles, and reads no others: one phase.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.patches.columns import Columns
from gsb_tvm.schedules.patches.space import Parameters
from gsb_tvm.schedules.patches.tiles import padded_patches
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.transpose import QUAD, transpose_block

Expr = Any
Buffer = Any


def kernel(spec: Patches, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``; arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    tensors = [*spec.inputs(), *spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        count = -(-spec.grid[0] * spec.grid[1] // parameters.patches)
        shape = (count, spec.depth, padded_patches(parameters.patches))
        pixels = v.workspace(shape, "float32")
        with phase() as share:
            _Nest(spec, parameters, named, pixels, share).write()

    return v.prim_func(tensors, body)


class _Nest:
    """Writes one part's work: tiles of patches of every image."""

    def __init__(
        self,
        spec: Patches,
        parameters: Parameters,
        named: dict[str, Buffer],
        pixels: Buffer,
        share: Share,
    ) -> None:
        self.spec, self.image, self.pixels, self.share = spec, named["image"], pixels, share
        assert parameters.step
        assert parameters.at_once
        self.tile, self.patches = parameters, spec.grid[0] * spec.grid[1]
        self.step, self.most = parameters.step, parameters.at_once
        self.columns = Columns(spec, named, self.tile)

    def write(self) -> None:
        """Emit everything: as many tiles at once as the cache holds."""
        if self.spec.prefix:
            with T.If(self.share.is_first), T.Then():
                self.columns.constant_tokens()
        count, most = int(self.pixels.shape[0]), self.most
        first, end = self.share.span(count)
        with T.serial(self.spec.batch) as batch, T.serial(-(-count // most)) as block:
            start = v.bind(first + block * most)
            stop = v.bind(T.min(start + most, end))
            with T.serial(start, stop) as tile:
                self._write_pixels(batch, tile)

            def products(columns: list[Expr]) -> None:
                whole, rest = divmod(self.patches, self.tile.patches)
                with T.serial(start, T.min(stop, T.int32(whole))) as tile:
                    self._register_tile(batch, tile, self.tile.patches, columns)
                if rest:
                    with T.If(stop > whole), T.Then():
                        self._register_tile(batch, T.int32(whole), rest, columns)

            with T.If(start < stop), T.Then():
                self.columns.blocks(products)

    def _write_pixels(self, batch: Expr, tile: Expr) -> None:
        """The pixels of a tile as ``[k][patch]``; the padding repeats patches."""
        height, width = self.spec.patch
        across = self.spec.grid[1]
        for quad in range(0, padded_patches(self.tile.patches), QUAD):
            places = []
            for p in range(quad, quad + QUAD):
                patch = v.bind(T.min(tile * self.tile.patches + p, T.int32(self.patches - 1)))
                row, column = T.floordiv(patch, across), T.floormod(patch, across)
                places.append((v.bind(row * height), v.bind(column * width)))
            with T.serial(self.spec.channels) as c, T.serial(height) as y:
                k = v.bind((c * height + y) * width)
                with T.serial(width // QUAD) as i:
                    at = [(batch, c, row + y, column + i * QUAD) for row, column in places]
                    block = [v.bind(v.load(self.image, *pixel, lanes=QUAD)) for pixel in at]
                    for x, turned in enumerate(transpose_block(block)):
                        v.store(self.pixels, turned, tile, k + i * QUAD + x, quad, lanes=QUAD)
                for x in range(width // QUAD * QUAD, width):
                    for p, (row, column) in enumerate(places):
                        pixel = self.image[batch, c, row + y, column + x]
                        v.put(self.pixels, pixel, tile, k + x, quad + p)

    def _register_tile(self, batch: Expr, tile: Expr, patches: int, columns: list[Expr]) -> None:
        lanes, vectors = self.tile.lanes, len(columns)
        cells = [(p, i) for p in range(patches) for i in range(vectors)]
        total = {cell: v.local((lanes,), "float32") for cell in cells}
        sums = {cell: v.local((lanes,), "float32") for cell in cells}
        for cell in cells:
            v.store(total[cell], v.splat(0.0, lanes), 0, lanes=lanes)

        def chunk(start: Expr, length: int) -> None:
            for cell in cells:
                v.store(sums[cell], v.splat(0.0, lanes), 0, lanes=lanes)
            with T.serial(length // self.step) as i:
                self._multiply(sums, tile, v.bind(start + i * self.step), self.step)
            if length % self.step:
                self._multiply(
                    sums, tile, start + length // self.step * self.step, length % self.step
                )
            for cell in cells:
                value = v.load(total[cell], 0, lanes=lanes) + v.load(sums[cell], 0, lanes=lanes)
                v.store(total[cell], value, 0, lanes=lanes)

        whole, rest = divmod(self.spec.depth, self.tile.chunk)
        with T.serial(whole) as i:
            chunk(v.bind(i * self.tile.chunk), self.tile.chunk)
        if rest:
            chunk(T.int32(whole * self.tile.chunk), rest)
        for p, i in cells:
            token = v.bind(tile * self.tile.patches + p)
            self.columns.finish(batch, token, columns[i], v.load(total[p, i], 0, lanes=lanes))

    def _multiply(
        self, sums: dict[tuple[int, int], Buffer], tile: Expr, start: Expr, steps: int
    ) -> None:
        """Add ``steps`` products to the sum of each patch and vector of columns."""
        lanes = self.tile.lanes
        patches, vectors = (1 + max(cell[axis] for cell in sums) for axis in range(2))
        value = {cell: v.load(buffer, 0, lanes=lanes) for cell, buffer in sums.items()}
        for step in range(steps):
            weights = self.columns.weights(start + step, vectors)
            for quad in range(0, patches, QUAD):
                pixels = v.bind(v.load(self.pixels, tile, start + step, quad, lanes=QUAD))
                for p in range(quad, min(quad + QUAD, patches)):
                    pixel = v.splat(T.Shuffle([pixels], [p - quad]), lanes)
                    for i, weight in enumerate(weights):
                        # One rounding for both steps: a sum in any order.
                        value[p, i] = v.bind(value[p, i] + pixel * weight)
        for cell, buffer in sums.items():
            v.store(buffer, value[cell], 0, lanes=lanes)
