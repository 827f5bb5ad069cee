"""The columns of a patch embedding: their weights as a panel, and what follows their sums.

A block of columns becomes a panel of float32 weights, contiguous along k, which stays in cache
while all patches pass. Bias and position follow in registers, and results land where the token
stands.
"""

from collections.abc import Callable
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Patches
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.patches.space import Parameters

Expr = Any
Buffer = Any


class Columns:
    """Blocks of ``tile.vectors`` vectors of columns, for one part."""

    def __init__(self, spec: Patches, named: dict[str, Buffer], tile: Parameters) -> None:
        self._spec, self._named, self._tile = spec, named, tile
        self._count = -(-spec.columns // tile.lanes)  # vectors
        self._panel = v.workspace((spec.depth, tile.vectors, tile.lanes), "float32")

    def blocks(self, body: Callable[[list[Expr]], None]) -> None:
        """Call ``body`` with the first column of each vector of a block, its panel filled."""
        whole, rest = divmod(self._count, self._tile.vectors)

        def block(start: Expr, vectors: int) -> None:
            columns = [self._column(start + i) for i in range(vectors)]
            self._fill_panel(columns)
            body(columns)

        with T.serial(whole) as i:
            block(v.bind(i * self._tile.vectors), self._tile.vectors)
        if rest:
            block(T.int32(whole * self._tile.vectors), rest)

    def constant_tokens(self) -> None:
        """Write the tokens in front of the patches, of every image."""
        lanes = self._tile.lanes
        with T.serial(self._spec.batch) as b, T.serial(self._spec.prefix) as i:
            with T.serial(self._count) as vector:
                at = self._column(vector)
                row = v.load(self._named["rows"], i, at, lanes=lanes)
                v.store(self._named["y"], row, b, i, at, lanes=lanes)

    def weights(self, k: Expr, vectors: int) -> list[Expr]:
        """The panel's vectors of one k."""
        lanes = self._tile.lanes
        return [v.bind(v.load(self._panel, k, i, 0, lanes=lanes)) for i in range(vectors)]

    def finish(self, batch: Expr, token: Expr, column: Expr, value: Expr) -> None:
        """Bias and position of a patch's vector of sums, and its place among the tokens."""
        lanes = self._tile.lanes
        if self._spec.bias:
            value = value + v.load(self._named["bias"], column, lanes=lanes)
        if self._spec.position:
            value = value + v.load(self._named["position"], token, column, lanes=lanes)
        v.store(self._named["y"], value, batch, self._spec.prefix + token, column, lanes=lanes)

    def _column(self, vector: Expr) -> Expr:
        """First column of a vector; the last one starts early where columns do not fill it."""
        start, lanes = vector * self._tile.lanes, self._tile.lanes
        if self._spec.columns % lanes == 0:
            return v.bind(start)
        return v.bind(T.min(start, T.int32(self._spec.columns - lanes)))

    def _fill_panel(self, columns: list[Expr]) -> None:
        lanes = self._tile.lanes
        with T.serial(self._spec.depth) as k:
            for i, at in enumerate(columns):
                weight = v.load(self._named["weight"], k, at, lanes=lanes)
                if self._spec.lattice:
                    scale = v.load(self._named["scale"], at, lanes=lanes)
                    weight = T.cast(weight, f"float32x{lanes}") * scale
                v.store(self._panel, weight, k, i, 0, lanes=lanes)
