"""Tile numbers of the value planes: pure functions of the shape."""

from gsb_tvm.dialect.bits import WORD_BITS, Rows


def row_length(rows: Rows) -> int:
    """Floats of a token's row that may be loaded: max(features, 32).

    A row shorter than one word is first copied to a buffer of that length.
    """
    return max(rows.features, WORD_BITS)
