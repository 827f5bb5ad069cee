"""Spec of the patch embedding, which turns an image into tokens.

See :mod:`gsb_tvm.dialect.specs`, which holds them all.
"""

from dataclasses import dataclass

from gsb_tvm.dialect.planes import Tensor


@dataclass(frozen=True)
class Patches:
    """Linear projection of the patches of an image, as tokens behind ``prefix`` constant ones.

    ``y[b, prefix + t, n] = sum_k image[b, patch t, k] * w[k, n]`` with k over (channel, row,
    column) of a patch and t over patches row by row, then ``+ bias[n]``, then ``+ position[t, n]``,
    each step rounded to float32; the sum in any order. ``y[b, i] = rows[i]`` for ``i < prefix``.
    At least two columns.
    Weights are float32, or where ``lattice`` int8 levels, ``w[k, n] = fl(level[k, n] * scale[n])``.
    """

    batch: int
    channels: int
    image: tuple[int, int]  # height, width
    patch: tuple[int, int]
    columns: int
    lattice: bool
    bias: bool
    position: bool = False
    prefix: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along height and width; what does not fill a patch is left out."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    @property
    def depth(self) -> int:
        """Length of the contracted axis."""
        return self.channels * self.patch[0] * self.patch[1]

    def inputs(self) -> list[Tensor]:
        """Image, weight, then scale, bias, position and rows where the spec has them."""
        vector = (self.columns,)
        tokens = self.grid[0] * self.grid[1]
        dtype = "int8" if self.lattice else "float32"
        return [
            ("image", (self.batch, self.channels, *self.image), "float32"),
            ("weight", (self.depth, self.columns), dtype),
            *([("scale", vector, "float32")] if self.lattice else []),
            *([("bias", vector, "float32")] if self.bias else []),
            *([("position", (tokens, self.columns), "float32")] if self.position else []),
            *([("rows", (self.prefix, self.columns), "float32")] if self.prefix else []),
        ]

    def outputs(self) -> list[Tensor]:
        """y (batch, prefix + patches, columns)."""
        tokens = self.prefix + self.grid[0] * self.grid[1]
        return [("y", (self.batch, tokens, self.columns), "float32")]
