"""Everything worth trying of a dense layer's kernel on a machine."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense.parameters import Parameters, of_tiles
from gsb_tvm.schedules.dense.tiles import (
    AMX_STEP_WORDS,
    PAIR_COLUMNS,
    SLICE_CHUNK,
    SLICE_STEP,
    Method,
    Split,
    Tiles,
    can_pair,
    can_slice,
)
from gsb_tvm.targets import Profile

COUNT_COLUMNS = (32, 64, 128, 192)  # counts of a token stand in less than 1 kB of stack
TILE_COLUMNS = (32, 64, 128, 256)
ROWS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16)
FEW_ROWS = (1, 2, 3, 4, 6, 9, 12, 16)
VECTORS = (1, 2, 3, 4, 6, 8)
CHUNKS = (7, 15, 31)  # 2**n - 1 words: every adder is full
BEYOND = 4  # registers: LLVM reads some operands from memory at no cost


def space(spec: Dense, profile: Profile) -> Iterator[Parameters]:
    """All parameters worth trying; each gives a kernel that computes the same."""
    for way in _ways(spec, profile):
        yield from _counts(spec, way)
    if profile.has_amx_int8:
        yield from _tile_products(spec)
    if profile.has_neon and can_pair(spec):
        yield from _pairs(spec)
        if can_slice(spec):
            yield from _slices(spec)


@dataclass(frozen=True)
class _Way:
    """A way to count: vectors of so many 32-bit lanes in so many registers.

    ``is_own``: the machine's own, of which more is tried.
    """

    method: Method
    lanes: int
    registers: int
    is_own: bool = True

    @property
    def rows(self) -> tuple[int, ...]:
        """Tokens of a register tile."""
        return ROWS if self.is_own else FEW_ROWS

    def needed(self, rows: int, vectors: int) -> int:
        """Registers of a tile: sums, weights, and what is between."""
        between = {Method.WORDS: 2, Method.BYTES: 3, Method.LOOKUP: 3 + vectors}
        return rows * vectors + vectors + between[self.method]

    def fits(self, rows: int, vectors: int, tokens: int) -> bool:
        """Whether a tile fills at least half of the registers, and hardly more than all."""
        if self.method is Method.CARRY_SAVE:
            return 8 * (rows * vectors - 1) <= self.registers  # as by rule, and a cell beyond
        needed = self.needed(rows, vectors)
        enough = 2 * needed >= self.registers or rows == min(tokens, ROWS[-1])
        return enough and needed <= self.registers + BEYOND


def _ways(spec: Dense, profile: Profile) -> Iterator[_Way]:
    """The machine's ways to count.

    Where sums are of several counts, those by carry-save addition would be by bytes.
    """
    registers = 32 if profile.has_avx512 or profile.has_neon else 16
    lanes = profile.lanes
    if profile.has_vpopcntdq:
        yield _Way(Method.WORDS, lanes, registers)
        yield _Way(Method.WORDS, lanes // 2, registers, is_own=False)
    if profile.has_avx512:
        yield _Way(Method.LOOKUP, 4 * lanes, registers, is_own=not profile.has_vpopcntdq)
    elif profile.has_avx2:
        yield _Way(Method.LOOKUP, 32, registers)
    elif "ssse3" in profile.features:
        yield _Way(Method.LOOKUP, 16, registers)
    if spec.weight is not Kind.MASKED:
        is_own = not (profile.has_vpopcntdq or profile.has_neon)
        yield _Way(Method.CARRY_SAVE, lanes, registers, is_own)
    yield _Way(Method.BYTES, lanes, registers, is_own=profile.has_neon and not can_pair(spec))


def _counts(spec: Dense, way: _Way) -> Iterator[Parameters]:
    """Register tiles in column tiles, and of each what else may be changed, one at a time."""
    words = spec.rows.packed_shape[1]
    for shape in _register_tiles(spec, way):
        chunks = {-(-words // -(-words // most)): most for most in reversed(CHUNKS)}
        first, *others = chunks.values() if way.method is Method.CARRY_SAVE else (shape.chunk,)
        base = replace(shape, chunk=first)
        yield of_tiles(base)
        if _has_more_blocks(spec, base):
            yield of_tiles(replace(base, split=Split.COLUMNS))
        if way.is_own:
            yield from (of_tiles(replace(base, chunk=chunk)) for chunk in others)
            yield of_tiles(replace(base, ahead=0))
            yield from (of_tiles(replace(base, unroll=n)) for n in (2, 4) if n <= words)


def _has_more_blocks(spec: Dense, shape: Tiles) -> bool:
    """Whether there are more column blocks to be shared than token tiles.

    Fewer would be shared less evenly, which who measures on one thread does not see.
    """
    return -(-spec.computed_columns // shape.column_tile) > -(-spec.rows.tokens // shape.rows)


def _register_tiles(spec: Dense, way: _Way) -> Iterator[Tiles]:
    tokens = spec.rows.tokens
    for column_tile in COUNT_COLUMNS:
        if column_tile - WORD_BITS >= spec.computed_columns:
            continue  # only padding more
        for vectors in VECTORS:
            if column_tile % (vectors * way.lanes):
                continue
            # What is read of a token should serve several vectors where there are some; beside
            # additions of planes it hardly counts.
            is_wasteful = vectors == 1 and column_tile > way.lanes
            is_wasteful = is_wasteful and way.method is not Method.CARRY_SAVE
            for rows in sorted({*way.rows, min(tokens, ROWS[-1])}):
                is_tried = rows == tokens or (rows < tokens and not is_wasteful)
                if is_tried and way.fits(rows, vectors, tokens):
                    yield Tiles(way.method, rows, vectors, way.lanes, column_tile)


def _tile_products(spec: Dense) -> Iterator[Parameters]:
    """AMX: all features at once, or in parts."""
    steps = -(-spec.rows.packed_shape[1] // AMX_STEP_WORDS)
    for column_tile in TILE_COLUMNS:
        if column_tile - WORD_BITS < spec.computed_columns:
            for count in dict.fromkeys(-(-steps // parts) for parts in range(1, 9)):
                yield Parameters(Method.TILES, column_tile, steps=count)


def _pairs(spec: Dense) -> Iterator[Parameters]:
    for unroll in (2, 3, 4, 6, 8, 12):
        if unroll <= spec.rows.packed_shape[1]:
            for ahead in (1, 0):
                yield Parameters(Method.PAIRS, PAIR_COLUMNS, unroll=unroll, ahead=ahead)


def _slices(spec: Dense) -> Iterator[Parameters]:
    words = spec.rows.packed_shape[1]
    for chunk in (SLICE_STEP, SLICE_CHUNK, 2 * SLICE_CHUNK, 4 * SLICE_CHUNK):
        if chunk == SLICE_STEP or chunk < words + SLICE_STEP:
            yield Parameters(Method.SLICES, PAIR_COLUMNS, unroll=SLICE_STEP, chunk=chunk)
