"""Tile numbers of the attention planes: pure functions of the shape."""

from dataclasses import dataclass

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS, words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules.sharing import MOST_PARTS


def query_rows(tokens: int) -> int:
    """Query rows that go through the softmax together: 1 <= rows <= min(8, tokens).

    Several rows hide the latency of each other's reductions and reciprocals; eight rows of 512
    keys fill 16 kB. The last block starts early where rows do not divide tokens, so the choice
    is the one that computes the fewest rows twice, the largest among equals.
    """
    if tokens < 4:
        return tokens
    return min(range(4, min(8, tokens) + 1), key=lambda rows: (-tokens % rows, -rows))


def blocks(tokens: int, rows: int) -> int:
    """Blocks of so many query rows per head."""
    return -(-tokens // rows)


def units(spec: AttentionPlanes, rows: int) -> int:
    """What parts share: blocks of query rows of all heads of all images."""
    return spec.q.batch * spec.q.groups * blocks(spec.q.tokens, rows)


def unit_words(spec: AttentionPlanes, rows: int) -> int:
    """Words of a mask that a block of query rows computes."""
    return rows * words(spec.q.tokens)


def kept_words(spec: AttentionPlanes, rows: int) -> int:
    """Words that the candidate lists must hold: every word computed, and one more of each part.

    A word is written before it is known whether it stays, hence the one more.
    """
    return units(spec, rows) * unit_words(spec, rows) + MOST_PARTS


@dataclass(frozen=True)
class Tail:
    """Last word of a row of keys, where it is not full: lanes >= keys, lanes in {16, 32}."""

    lanes: int
    keys: int


def tail(tokens: int) -> Tail | None:
    """Part of the last word that is computed; packed tokens are padded to 16, so it can be read."""
    keys = tokens % WORD_BITS
    if keys == 0:
        return None
    return Tail(-(-keys // TOKEN_ALIGN) * TOKEN_ALIGN, keys)
