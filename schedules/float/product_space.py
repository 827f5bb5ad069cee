"""What may be chosen of a matrix product: how B is read, register tiles, order of their loops."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from math import prod

from tvm.ir import TensorLoad

from gsb_tvm.schedules.float.loops import extents
from gsb_tvm.schedules.float.merging import merged
from gsb_tvm.schedules.float.roles import Product
from gsb_tvm.schedules.float.space import Change, Region, nearest
from gsb_tvm.schedules.float.stages import stride
from gsb_tvm.schedules.float.tiles import fitting_lanes, product_tiles, rows_of_block
from gsb_tvm.schedules.float.windows import Window
from gsb_tvm.targets.profile import Profile

_TILES = 12  # register tiles that are tried for each width of vectors, by their estimates
_UNROLLS = (1, 2, 4)
_FEWEST_LANES = 4
_FEWEST_UNITS = 16  # tiles of rows, where nothing else is left for threads to share
_LONG_NODES = 24  # of what follows a product: beyond, it stands once for a tile
_UNROLLED_NODES = 1024  # of all copies of it that are tried


class Columns(StrEnum):
    """Where the columns of B come from: as they are, or written out before the product."""

    IN_PLACE = "in_place"
    WRITTEN = "written"
    PATCHES = "patches"


class Reads(StrEnum):
    """What a register tile reads: a panel of its columns, copied, or the columns themselves."""

    PANEL = "panel"
    SOURCE = "source"


class Outer(StrEnum):
    """What stays while the other side's tiles are walked: a tile of columns, or one of rows."""

    COLUMNS = "columns"
    ROWS = "rows"


class Finish(StrEnum):
    """What follows a product: once for each vector of a tile, or in a loop over its rows."""

    UNROLLED = "unrolled"
    LOOP = "loop"


@dataclass(frozen=True)
class Parameters:
    """What may be chosen of a product.

    How its sums are cut into chunks is no choice: that would change how they are rounded.

    Attributes
    ----------
    columns
        Where the columns come from.
    lanes
        Columns of a vector.
    rows, vectors
        Register tile: rows, and vectors of columns.
    unroll
        Steps along k that stand in a row.
    reads
        What a tile reads; ``SOURCE`` of patches.
    outer
        Which tiles are walked outermost; ``COLUMNS`` with panels, which belong to them.
    block
        Rows of positions that a block of patches has; None of others.
    finish
        How what follows stands; None where nothing does.
    """

    columns: Columns
    lanes: int
    rows: int
    vectors: int
    unroll: int = 1
    reads: Reads = Reads.SOURCE
    outer: Outer = Outer.COLUMNS
    block: int | None = None
    finish: Finish | None = None


@dataclass(frozen=True)
class Following:
    """What follows a product element by element: its nodes, and whether it calls functions."""

    nodes: int
    has_calls: bool

    @property
    def is_long(self) -> bool:
        """Whether it should stand once per tile, not once per row."""
        return self.has_calls or self.nodes > _LONG_NODES


@dataclass(frozen=True)
class Space:
    """The choices of one product on one machine."""

    product: Product
    window: Window | None
    following: Following | None
    profile: Profile

    def rule(self) -> Parameters:
        """The register tile of the least estimate; columns in place where they are neighbours."""
        columns = self._columns()
        block = self._blocks()[0] if columns is Columns.PATCHES else None
        return self._at(columns, block, self.profile.lanes)[0]

    def around(self) -> list[Parameters]:
        """Choices around the rule's."""
        return nearest(self._regions())

    def _regions(self) -> Iterator[Region[Parameters]]:
        lanes = self.profile.lanes
        widths = [lanes, lanes // 2] if lanes // 2 >= _FEWEST_LANES else [lanes]
        for distance, (columns, block) in enumerate(self._sources()):
            for narrower, width in enumerate(widths):
                for place, start in enumerate(self._at(columns, block, width)[:_TILES]):
                    options = [self._orders(start), self._unrolls(), self._finishes(start)]
                    yield Region(distance + narrower + place, start, options)

    def _columns(self) -> Columns:
        long = [axis for axis in self.product.n if axis.extent > 1]
        if len(merged(self.product.b, long)) == 1:
            return Columns.IN_PLACE
        return Columns.PATCHES if self.window is not None else Columns.WRITTEN

    def _sources(self) -> list[tuple[Columns, int | None]]:
        """Where columns may come from, the rule's first: in blocks of other sizes, or as a whole.

        A whole matrix is tried where a few of the second cache would hold it.
        """
        columns = self._columns()
        if columns is not Columns.PATCHES:
            return [(columns, None)]
        found: list[tuple[Columns, int | None]] = [(columns, block) for block in self._blocks()]
        size = 4 * prod(extents((*self.product.batch, *self.product.k, *self.product.n)))
        if size <= 4 * self.profile.l2_bytes:
            found.append((Columns.WRITTEN, None))
        return found

    def _blocks(self) -> list[int]:
        """Rows of positions of a block that fills half of the second cache, or other parts."""
        height, width = (axis.extent for axis in self.product.n[-2:])
        row = 4 * prod(extents(self.product.k))
        half = self.profile.l2_bytes // 2
        parts = [half // row, half // 2 // row, 2 * half // row, half // 4 // row]
        lanes = self.profile.lanes
        return list(dict.fromkeys(rows_of_block(height, width, lanes, most) for most in parts))

    def _at(self, columns: Columns, block: int | None, lanes: int) -> list[Parameters]:
        """With all tiles, by their estimates; whatever else is by rule."""
        product = self.product
        count = prod(extents(product.n)) if block is None else block * product.n[-1].extent
        lanes = fitting_lanes(count, lanes)
        registers = 32 if self.profile.has_avx512 or self.profile.has_neon else 16
        tiles = product_tiles(prod(extents(product.m)), -(-count // lanes), registers)
        finish = None
        if self.following is not None:
            finish = Finish.LOOP if self.following.is_long else Finish.UNROLLED
        starts = [Parameters(columns, lanes, *tile, block=block, finish=finish) for tile in tiles]
        return [replace(start, **self._orders(start)[0]) for start in starts]

    def _orders(self, start: Parameters) -> list[Change]:
        """What a tile may read, in which order; the rule's first."""
        product = self.product
        tiles = -(-prod(extents(product.m)) // start.rows)
        across: Change = {"reads": Reads.SOURCE, "outer": Outer.ROWS}
        down: Change = {"reads": Reads.SOURCE, "outer": Outer.COLUMNS}
        if tiles == 1:
            return [down]
        if start.columns is Columns.PATCHES:
            return [down, across]
        panel: Change = {"reads": Reads.PANEL, "outer": Outer.COLUMNS}
        if not self._is_contiguous(start.columns):
            return [panel]
        units = tiles * prod(extents(product.batch))
        return [panel, down, across] if units >= _FEWEST_UNITS else [panel, down]

    def _is_contiguous(self, columns: Columns) -> bool:
        """Whether neighbouring columns are neighbours in memory."""
        b = self.product.b
        if columns is Columns.WRITTEN:
            return True
        last = [axis for axis in self.product.n if axis.extent > 1][-1]
        return isinstance(b, TensorLoad) and stride(b, last.var) == 1

    def _unrolls(self) -> list[Change]:
        _, inner = self.product.chunks
        longest = [axis.extent for axis in inner if axis.extent > 1][-1:] or [1]
        return [{"unroll": n} for n in _UNROLLS if n == 1 or 2 * n <= longest[0]]

    def _finishes(self, start: Parameters) -> list[Change]:
        """The rule's, and the other where it does not fill the code with copies."""
        if self.following is None:
            return [{"finish": None}]
        loop: Change = {"finish": Finish.LOOP}
        unrolled: Change = {"finish": Finish.UNROLLED}
        if not self.following.is_long:
            return [unrolled, loop]
        copies = self.following.nodes * start.rows * start.vectors
        return [loop] if self.following.has_calls or copies > _UNROLLED_NODES else [loop, unrolled]
