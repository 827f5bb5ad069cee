"""Tile numbers of the value planes: pure functions of shape and profile."""

from gsb_tvm.dialect.bits import WORD_BITS, Rows
from gsb_tvm.targets import Profile


def row_length(rows: Rows) -> int:
    """Floats of a token's row that may be loaded: max(features, 32).

    A row shorter than one word is first copied to a buffer of that length.
    """
    return max(rows.features, WORD_BITS)


def accumulators(profile: Profile, rows: Rows) -> int:
    """Pairs of accumulators of the first pass: 1 <= count <= 4, count * lanes <= row length.

    Four pairs cover the latency of a maximum on every machine and fit any register file.
    """
    return min(4, row_length(rows) // profile.lanes)
