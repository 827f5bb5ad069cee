"""A block's tile of a patch embedding on CUDA."""

from dataclasses import dataclass

from gsb_tvm.schedules.cuda.grid import WARP

QUAD = 4  # neighbours that are loaded and stored at once
LANE_ROWS, LANE_COLUMNS = 4, 8  # lanes of a warp along rows and columns
WARP_ROWS, WARP_COLUMNS = QUAD * LANE_ROWS, QUAD * LANE_COLUMNS  # of one quad of each lane
SKEW = 4  # floats behind a panel's line: lanes that write a quad of the depth meet few banks twice
PANELS = 2  # one that is multiplied, one that is written


@dataclass(frozen=True)
class Parameters:
    """A block's tile.

    Attributes
    ----------
    warp_rows, warp_columns
        Warps along the rows and the columns of the tile.
    row_quads, column_quads
        Quads of each lane along them.
    slices
        Warps that share a part of the tile.
    chunk
        Depth of a panel: a multiple of 4 and of ``slices``.
    """

    warp_rows: int
    warp_columns: int
    row_quads: int
    column_quads: int
    slices: int
    chunk: int

    @property
    def rows(self) -> int:
        """Of the tile."""
        return self.warp_rows * self.row_quads * WARP_ROWS

    @property
    def columns(self) -> int:
        """Of the tile."""
        return self.warp_columns * self.column_quads * WARP_COLUMNS

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.warp_rows * self.warp_columns * self.slices

    @property
    def sums(self) -> int:
        """Of a thread."""
        return self.row_quads * self.column_quads * QUAD * QUAD

    @property
    def shared_bytes(self) -> int:
        """Panels, and sums of all slices but the first."""
        panels = PANELS * self.chunk * (self.rows + self.columns + 2 * SKEW)
        return 4 * (panels + (self.slices - 1) * self.rows * self.columns)
