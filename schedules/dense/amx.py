"""The loop nest of a dense layer on AMX tiles.

The layer's bits become bytes: the activation's once, the weights' for one block of 32 columns and
so many features as stay in L1 while all token tiles of the part pass. A step is two token tiles
times two column tiles. What it sums to is finished during the next step: a load close behind a
tile's store would wait for it, and the vector units are idle while tiles multiply. Where a row of
features is cut, the sums of all token tiles wait in memory between the pieces.

One product serves every pair of kinds, and its sum takes the place of a count in ``dot = base -
factor * count``:

=========================  =============  ===============================  ======
activation                 bytes          base                             factor
=========================  =============  ===============================  ======
sign, 2 a - 1, a {0, 1}    a              minus the sum of the weights     2
mask {0, 1}                the same       0                                1
masked sign {-1, 0, 1}     the same       0                                1
=========================  =============  ===============================  ======

Thresholds take it so, with the weights negated. Float steps take the weights as they are and minus
the factor, which saves them a subtraction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense import amx_tiles as amx
from gsb_tvm.schedules.dense.amx_bytes import negated_sums, spread_tokens, spread_weights
from gsb_tvm.schedules.dense.epilogue import Block, Epilogue
from gsb_tvm.schedules.dense.operands import Plane
from gsb_tvm.schedules.dense.tiles import (
    AMX_COLUMNS,
    AMX_ROW_BYTES,
    AMX_ROWS,
    AMX_STEP_WORDS,
)
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import bind, local, workspace

Expr = Any
Buffer = Any

LEFT, RIGHT = (4, 5), (6, 7)  # tile registers of operands; sums are 2 * left + right of 0 to 3
PAIR = 2 * AMX_ROWS  # tokens of a step
SUM_BYTES = AMX_COLUMNS * 4  # of a token


class Scratch:
    """Memory that all parts share, made outside the phases; a part uses its own tokens' places."""

    def __init__(self, spec: Dense, of_block: int) -> None:
        tiles, steps = -(-spec.rows.tokens // AMX_ROWS), _steps(spec.rows.packed_shape[1])
        self.steps = of_block  # whose weights are spread at once
        self.is_split = self.steps < steps
        self.activation = workspace((tiles, steps, AMX_ROWS, AMX_ROW_BYTES), "int8")
        if self.is_split:
            self.sums = workspace((tiles * AMX_ROWS, AMX_COLUMNS), "int32")


@dataclass(frozen=True)
class Split:
    """A column block's product over some words of features."""

    block: Block
    word: Expr
    words: int
    is_first: bool
    is_last: bool


@dataclass(frozen=True)
class Sums:
    """One token's sums of a column block, as an epilogue reads them."""

    buffer: Buffer
    row: Expr

    def __getitem__(self, columns: Expr) -> Expr:
        return self.buffer[self.row, columns]


def nothing(*_: Any) -> None:
    """Emit nothing."""


class Nest:
    """Writes a part's loops."""

    def __init__(
        self,
        spec: Dense,
        named: dict[str, Buffer],
        finish: Epilogue,
        share: Share,
        scratch: Scratch,
    ) -> None:
        self.spec, self.finish, self.scratch = spec, finish, scratch
        self.words = spec.rows.packed_shape[1]
        self.activation = Plane(named["a_bits"], named.get("a_nonzero"))
        self.weight = Plane(named["weight"], named.get("weight_nonzero"))
        self.first, self.last = share.span(-(-spec.rows.tokens // AMX_ROWS))
        self.tiles = bind(self.last - self.first)
        self.bytes = workspace((scratch.steps, 2, AMX_ROWS, AMX_ROW_BYTES), "int8")
        self.sums = scratch.sums if scratch.is_split else workspace((PAIR, AMX_COLUMNS), "int32")
        self.is_sign = spec.activation is Kind.SIGN
        self.negated = spec.thresholds is not None
        self.base: int | Buffer = local((AMX_COLUMNS,), "int32") if self.is_sign else 0

    def write(self) -> None:
        """Emit the part's tokens of the whole layer."""
        with T.If(self.tiles > 0), T.Then():
            amx.configure(self.bytes, 0, 0, 0, 0)
            with T.serial(0, self.spec.rows.batch) as batch:
                with T.serial(self.first, self.last) as tile:
                    tokens, out = self.spec.rows.tokens, self.scratch.activation
                    spread_tokens(self.activation, out, batch, self.words, tokens, tile)
                self._columns(batch)
            amx.release()

    def _columns(self, batch: Expr) -> None:
        full, rest = divmod(self.spec.computed_columns, AMX_COLUMNS)
        if full:
            with T.serial(0, full) as i:
                self._block(self._at(batch, bind(i * AMX_COLUMNS), AMX_COLUMNS), i > 0)
        if rest:
            self._block(self._at(batch, full * AMX_COLUMNS, rest), T.bool(full > 0))
        width = rest or AMX_COLUMNS
        self._finish_last(self._at(batch, self.spec.computed_columns - width, width))

    def _at(self, batch: Expr, first: Expr, columns: int) -> Block:
        factor = 2 if self.is_sign else 1
        return Block(batch, first, columns, self.base, factor if self.negated else -factor)

    def _block(self, block: Block, has_previous: Expr) -> None:
        """All products of a column block; the last step is left to be finished.

        The last step of the block before it is finished here, with that block's constants; those of
        this block take their place afterwards.
        """
        before = self._at(block.batch, block.first - AMX_COLUMNS, AMX_COLUMNS)

        def finish_before() -> None:
            with T.If(has_previous), T.Then():
                self._finish_last(before)

        per = self.scratch.steps * AMX_STEP_WORDS
        count = -(-self.words // per)
        first = Split(block, 0, min(per, self.words), is_first=True, is_last=count == 1)
        self._first_step(first, finish_before)
        self._enter(block)
        self._other_steps(first)
        if count > 2:
            with T.serial(1, count - 1) as i:
                self._split(Split(block, bind(i * per), per, is_first=False, is_last=False))
        if count > 1:
            at = (count - 1) * per
            self._split(Split(block, at, self.words - at, is_first=False, is_last=True))

    def _split(self, split: Split) -> None:
        self._first_step(split, nothing)
        self._other_steps(split)

    def _enter(self, block: Block) -> None:
        """Make the constants those of ``block``."""
        if self.is_sign:
            tile, column = self._place(block)
            features = self.spec.rows.features
            negated_sums(self.weight, self.base, tile, column, self.words, features)
        self.finish.enter(block)

    def _place(self, block: Block) -> tuple[Expr, Expr]:
        """Column tile of a block, and its first column in the tile."""
        size = self.spec.column_tile
        return T.floordiv(block.first, size), T.floormod(block.first, size)

    def _first_step(self, split: Split, finish: Callable[[], None]) -> None:
        """Spread the weights, and do the step of the part's first one or two token tiles."""
        place = self._place(split.block)
        spread_weights(
            self.weight, self.bytes, *place, split.word, split.words, negated=self.negated
        )
        with T.If(self.tiles > 1):
            with T.Then():
                self._step(split, self.first, 2, nothing, finish)
            with T.Else():
                self._step(split, self.first, 1, nothing, finish)

    def _other_steps(self, split: Split) -> None:
        steps = _steps(split.words)
        share = -(-PAIR // steps)  # rows of the pair before that are finished in each k step

        def finish_rows(tile: Expr, k: int) -> None:
            for row in range(k * share, min((k + 1) * share, PAIR)):
                self._finish_row(split.block, tile, row)

        def step(tile: Expr, count: int) -> None:
            beside = (lambda k: finish_rows(tile - 2, k)) if split.is_last else nothing
            self._step(split, tile, count, beside, nothing)

        with T.serial(1, T.floordiv(self.tiles, 2)) as pair:
            step(bind(self.first + 2 * pair), 2)
        with T.If(T.And(self.tiles > 1, T.floormod(self.tiles, 2) == 1)), T.Then():
            step(bind(self.last - 1), 1)

    def _step(
        self,
        split: Split,
        tile: Expr,
        count: int,
        beside: Callable[[int], None],
        behind: Callable[[], None],
    ) -> None:
        """Add the product of ``count`` token tiles; ``beside(k)`` stands behind each k step.

        ``behind()`` comes after all of them. Both come before the sums are stored, since what they
        read may stand where those go.
        """
        signed = self.spec.activation is Kind.MASKED
        cells = [(i, j) for i in range(count) for j in range(2)]
        self._sums(split, tile, cells)
        for k in range(_steps(split.words)):
            step = T.floordiv(split.word, AMX_STEP_WORDS) + k
            for i in range(count):
                for j in range(2):
                    if i == 0:
                        amx.load_tile(RIGHT[j], self.bytes, k, j, 0, 0)
                    if j == 0:
                        amx.load_tile(LEFT[i], self.scratch.activation, tile + i, step, 0, 0)
                    amx.multiply(2 * i + j, LEFT[i], RIGHT[j], signed=signed)
            beside(k)
        behind()
        for i, j in cells:
            at = self._row_of(tile, i * AMX_ROWS), j * amx.COLUMNS
            amx.store_tile(2 * i + j, self.sums, *at, stride_bytes=SUM_BYTES)

    def _sums(self, split: Split, tile: Expr, cells: list[tuple[int, int]]) -> None:
        for i, j in cells:
            if split.is_first:
                amx.clear(2 * i + j)
            else:
                at = self._row_of(tile, i * AMX_ROWS), j * amx.COLUMNS
                amx.load_tile(2 * i + j, self.sums, *at, stride_bytes=SUM_BYTES)

    def _row_of(self, tile: Expr, row: Expr) -> Expr:
        """Where the sums of a step's row are: one place for all steps where they are not kept."""
        return tile * AMX_ROWS + row if self.scratch.is_split else row

    def _finish_row(self, block: Block, tile: Expr, row: Expr) -> None:
        sums = Sums(self.sums, self._row_of(tile, row))
        self.finish.row(block, tile * AMX_ROWS + row, sums)

    def _finish_last(self, block: Block) -> None:
        """Finish the part's last step, which may have fewer tokens."""
        tile = bind(self.first + T.floordiv(self.tiles - 1, 2) * 2)
        rows = T.min(T.int32(PAIR), self.spec.rows.tokens - tile * AMX_ROWS)
        rows = T.min(rows, (self.last - tile) * AMX_ROWS)
        with T.serial(0, rows) as row:
            self._finish_row(block, tile, row)


def _steps(words: int) -> int:
    """Tile products along ``words`` words of features."""
    return -(-words // AMX_STEP_WORDS)
