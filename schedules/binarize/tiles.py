"""Tile numbers of the binarize kernels: pure functions of shape and machine."""

from gsb_tvm.dialect.bits import WORD_BITS

ROWS = 6


def block_rows(tokens: int) -> int:
    """Rows taken through the stages together: ``1 <= rows <= min(6, tokens)``.

    Reductions, root and reciprocal of a row are pure latency; six rows side by side hide it. More
    rows gain nothing, since a word of gamma, beta and shift is already shared by six.
    """
    return min(ROWS, tokens)


def sum_words(features: int, lanes: int) -> int:
    """Words of 32 partial sums a row is summed in: ``1 <= words <= features // 32``.

    Four to eight vector registers (``4 <= 32 * words / lanes <= 8``) hide the latency of an add and
    leave half of the smallest register file free.
    """
    fitting = 2 if lanes >= 8 else 1
    return max(1, min(fitting, features // WORD_BITS))
