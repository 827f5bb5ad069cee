"""What may be chosen of a dense layer's kernel, and what is chosen by rule."""

from dataclasses import dataclass, replace

from gsb_tvm.dialect.specs import Dense
from gsb_tvm.schedules.dense.tiles import (
    PAIR_COLUMNS,
    PAIR_STEP,
    SLICE_CHUNK,
    SLICE_STEP,
    Method,
    Split,
    Tiles,
    amx_steps,
    column_tile,
    method,
    tiles,
)
from gsb_tvm.targets import Profile


@dataclass(frozen=True)
class Parameters:
    """Of one kernel; None where its method has no such parameter.

    Attributes
    ----------
    method
        Inner loop.
    column_tile
        Columns that the packed weight is tiled by.
    rows, vectors, lanes, split
        As in :class:`~gsb_tvm.schedules.dense.tiles.Tiles`, of what counts.
    unroll
        Words of a turn of the innermost loop; bytes of words of LOOKUP.
    ahead
        Column blocks whose weights are asked for before they are needed: 0 or 1.
    chunk
        Words that CARRY_SAVE adds before it counts, or whose tables SLICES uses at a time.
    steps
        Tile products along features whose weights TILES spreads at once.
    """

    method: Method
    column_tile: int
    rows: int | None = None
    vectors: int | None = None
    lanes: int | None = None
    unroll: int | None = None
    ahead: int | None = None
    chunk: int | None = None
    split: Split | None = None
    steps: int | None = None

    @property
    def counts(self) -> Tiles:
        """Sizes of what counts."""
        assert self.rows is not None
        assert self.vectors is not None
        assert self.lanes is not None
        assert self.ahead is not None
        assert self.split is not None
        return Tiles(
            self.method,
            self.rows,
            self.vectors,
            self.lanes,
            self.column_tile,
            self.unroll or 1,
            self.ahead,
            self.chunk or 1,
            self.split,
        )


def of_tiles(shape: Tiles) -> Parameters:
    """Parameters of what counts: inverse of :attr:`Parameters.counts`."""
    chosen = Parameters(
        shape.method,
        shape.column_tile,
        shape.rows,
        shape.vectors,
        shape.lanes,
        ahead=shape.ahead,
        split=shape.split,
    )
    if shape.method is Method.CARRY_SAVE:
        return replace(chosen, chunk=shape.chunk)
    return replace(chosen, unroll=shape.unroll)


def usual(way: Method, spec: Dense, profile: Profile) -> Parameters:
    """Parameters by rule once the method is chosen, one that :func:`method` may give."""
    if way is Method.TILES:
        steps = amx_steps(profile, spec.rows.packed_shape[1])
        return Parameters(way, column_tile(profile), steps=steps)
    if way is Method.PAIRS:
        return Parameters(way, PAIR_COLUMNS, unroll=PAIR_STEP, ahead=1)
    if way is Method.SLICES:
        return Parameters(way, PAIR_COLUMNS, unroll=SLICE_STEP, chunk=SLICE_CHUNK)
    shape = tiles(profile)
    assert way is shape.method
    return of_tiles(shape)


def rule(spec: Dense, profile: Profile) -> Parameters:
    """What is chosen without measurements."""
    return usual(method(spec, profile), spec, profile)


def arranged(spec: Dense, chosen: Parameters) -> Dense:
    """The spec that a kernel with these parameters is for: with weights in its column tiles."""
    return replace(spec, column_tile=chosen.column_tile)
