"""Register tiles of the dense kernels: pure functions of the machine."""

from dataclasses import dataclass
from enum import StrEnum

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense.formula import product
from gsb_tvm.targets import Profile


class Method(StrEnum):
    """How differing bits are counted."""

    WORDS = "words"  # population count of 32-bit lanes
    BYTES = "bytes"  # population count of bytes
    PAIRS = "pairs"  # population count of bytes, added in pairs
    SLICES = "slices"  # tables of sums as planes of bits
    CARRY_SAVE = "carry_save"  # population count of bytes after carry-save addition
    LOOKUP = "lookup"  # table of nibbles
    TILES = "tiles"  # tile products of bytes


class Split(StrEnum):
    """What parts share."""

    TOKENS = "tokens"  # token tiles; each part prepares the column blocks for itself
    COLUMNS = "columns"  # column blocks, with all tokens


CARRY_SAVE_CHUNK = 15  # words: 2**4 - 1, so that every adder is full


@dataclass(frozen=True)
class Tiles:
    """Tile sizes of what counts.

    Attributes
    ----------
    method
        Inner loop.
    rows
        Tokens of a register tile.
    vectors
        Vectors of columns of a register tile.
    lanes
        32-bit columns per vector.
    column_tile
        Columns whose weights are kept in L1 while all tokens pass: a multiple of
        ``vectors * lanes`` and of 32.
    unroll
        Words of a turn of the innermost loop; bytes of LOOKUP.
    ahead
        Column blocks whose weights are asked for before they are needed: 0 or 1.
    chunk
        Words that CARRY_SAVE adds before it counts.
    split
        What parts share.
    """

    method: Method
    rows: int
    vectors: int
    lanes: int
    column_tile: int
    unroll: int = 1
    ahead: int = 1
    chunk: int = CARRY_SAVE_CHUNK
    split: Split = Split.TOKENS


def tiles(profile: Profile) -> Tiles:
    """Tile sizes for ``profile``.

    WORDS: with 32 registers, ``rows * vectors`` counters, ``vectors`` weights, an activation and a
    temporary must fit: 6 * 4 + 4 + 2 <= 32. LOOKUP: ``rows * vectors`` counters, ``2 * vectors``
    weights, two table rows and a temporary in 16 registers: 3 * 2 + 4 + 2 + 1 <= 16; the turned
    weights, 8 bytes per word and column, stay in 32 kB of L1 up to 64 words: 8 * 64 * 64 <= 32768.
    BYTES, Neon: like WORDS with two temporaries, 3 * 4 + 4 + 3 <= 32. CARRY_SAVE keeps at most 2
    vectors of each weight 1, 2, 4, 8 per cell: 2 cells * 8 <= 16.
    """
    if profile.has_vpopcntdq:
        return Tiles(Method.WORDS, 6, 4, 16, 64)
    if profile.has_avx512:
        return Tiles(Method.CARRY_SAVE, 1, 2, 16, 64)
    if profile.has_avx2:
        return Tiles(Method.LOOKUP, 3, 2, 32, 64)
    if profile.has_neon:
        return Tiles(Method.BYTES, 3, 4, 4, 32)
    return Tiles(Method.CARRY_SAVE, 1, 2, 4, 32)


LINE_WORDS = 16  # of a cache line of 64 bytes


def lines_ahead(words: int, shape: Tiles, token_tiles: int) -> tuple[int, int]:
    """Cache lines of the next block's weights that each token tile asks for, and lines of a word.

    Together they cover the block: ``each * token_tiles >= words * lines``.
    """
    lines = shape.column_tile // LINE_WORDS
    return -(-words * lines // token_tiles), lines


GPU_COLUMNS = 64  # blocks of a GPU take one such tile or two


def column_tile(profile: Profile) -> int:
    """Columns that the packed weight is tiled by, a multiple of 32."""
    return GPU_COLUMNS if profile.gpu is not None else tiles(profile).column_tile


AMX_ROWS, AMX_ROW_BYTES = 16, 64  # of a tile register
AMX_COLUMNS = 32  # of a block: two column tiles
AMX_STEP_WORDS = AMX_ROW_BYTES // WORD_BITS  # a row of a tile is a byte for each bit of two words


def amx_steps(profile: Profile, words: int) -> int:
    """Tile products along features whose weights are spread at once: all, or equal parts of them.

    Of a step, 2 kB of weights stay in L1 while 2 kB of activation pass; sums and what an epilogue
    reads take 8 kB more. All of it may take two thirds of L1: ``4096 * steps + 8192 <= 2 / 3 l1``,
    6 steps (384 features) of 48 kB. The prototype measured that size; more was not tried.
    """
    steps = -(-words // AMX_STEP_WORDS)
    most = max(1, (2 * profile.l1_bytes // 3 - 8192) // 4096)
    return -(-steps // -(-steps // most))


PAIR_ROWS, PAIR_COLUMNS = 4, 32  # of a tile of Method.PAIRS: four packed words of output
PAIR_STEP = 6  # words of its loop


def method(spec: Dense, profile: Profile) -> Method:
    """How the kernel of ``spec`` multiplies; with AMX what takes fewer cycles by estimate.

    PAIRS on Neon, or SLICES, by estimate, where a core can wait for tables.
    """
    if profile.has_amx_int8 and tile_cycles(spec, profile) < count_cycles(spec):
        return Method.TILES
    if profile.has_neon and can_pair(spec):
        fewer = can_slice(spec) and slice_instructions(spec) < pair_instructions(spec)
        return Method.SLICES if fewer and has_tables(profile) else Method.PAIRS
    return tiles(profile).method


def can_pair(spec: Dense) -> bool:
    """Whether PAIRS can do a layer, on Neon.

    Counts of signs or masks times signs, in 16 bits with room for twice a padded row.
    """
    return spec.weight is not Kind.MASKED and spec.rows.features < 2**14 - WORD_BITS


SLICE_COLUMNS = 128  # of a block of Method.SLICES: bits of a vector
SLICE_STEP = 6  # words of its loop
SLICE_CHUNK = 12  # words whose tables, 20 kB each, are used at a time


def can_slice(spec: Dense) -> bool:
    """Whether SLICES can do a layer that PAIRS can: whole blocks of columns, words for a step."""
    masked = spec.thresholds is not None and spec.thresholds.kind is Kind.MASKED
    enough = spec.rows.packed_shape[1] >= SLICE_STEP
    return enough and spec.computed_columns % SLICE_COLUMNS == 0 and not masked


def has_tables(profile: Profile) -> bool:
    """Whether a core is one for SLICES.

    Every number comes from tables of up to 270 kB, so from L2: a core must go on meanwhile, and
    half of that cache must hold them.
    """
    return profile.out_of_order and profile.l2_bytes >= 512 * 1024


def slice_instructions(spec: Dense) -> float:
    """Instructions of a block of SLICES, counted for 198 tokens under emulation.

    62 a token and word, 3450 for the tables of a word, and what becomes of a token's sums: compared
    as they are, or turned into numbers.
    """
    words, tokens = spec.rows.packed_shape[1], spec.rows.tokens
    return words * (62 * tokens + 3450) + tokens * (390 if spec.thresholds is None else 80)


def pair_instructions(spec: Dense) -> float:
    """Instructions of PAIRS for so many columns, counted likewise."""
    words, tokens = spec.rows.packed_shape[1], spec.rows.tokens
    return words * 104 * tokens + tokens * (190 if spec.thresholds is None else 30)


def count_cycles(spec: Dense) -> float:
    """Cycles of a layer by VPOPCNTDQ on one core of Sapphire Rapids.

    282 multiply-accumulates a cycle and term of the product, 0.83 of the port limit: 1.4 GMAC in
    1.38 ms at 3.6 GHz, measured with a prototype in C. Masked activations are taken to hold no
    zero.
    """
    activation = Kind.SIGN if spec.activation is Kind.MASKED else spec.activation
    terms = len(product(activation, spec.weight).terms)
    rows = spec.rows
    macs = rows.batch * rows.tokens * spec.computed_columns * rows.packed_shape[1] * WORD_BITS
    return terms * macs / 282


def tile_cycles(spec: Dense, profile: Profile) -> float:
    """Cycles of a layer by AMX on one core of Sapphire Rapids, one thread.

    The prototype's measurements at 3.59 GHz, 198 tokens, in thousands of cycles: 384 x 1152 206,
    384 x 1536 275, 1536 x 384 260; bare products 129, 173, 173, so 23 a product instead of 16. The
    rest fits 5.5 for each row of weights spread, 5.4 for each row of 32 sums finished, and 24 for
    each tile of sums kept and read again, within 1 %. It had its activations as bytes: spreading a
    row of 64 is estimated at 2 cycles a plane (llvm-mca: 1.4 for one, 2.7 for two), a call at 1000
    more than by counting.
    """
    rows, words = spec.rows, spec.rows.packed_shape[1]
    blocks = -(-spec.computed_columns // AMX_COLUMNS)
    tokens = -(-rows.tokens // AMX_ROWS)
    steps = -(-words // AMX_STEP_WORDS)
    splits = -(-steps // amx_steps(profile, words))
    block = 2 * tokens * steps * 23 + 2 * steps * AMX_ROWS * 5.5 + rows.tokens * 5.4
    block += 2 * tokens * (splits - 1) * 24
    planes = 2 if spec.activation is Kind.MASKED else 1
    return rows.batch * (blocks * block + tokens * AMX_ROWS * steps * 2 * planes) + 1000
