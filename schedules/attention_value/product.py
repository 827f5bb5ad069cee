"""Dense products of one attention plane and one value plane, exact.

With p a row of attention, x the positive values and z the nonzero ones, both turned along keys::

    p . value = 2 #(p & x) - #(p & z)        and #(p & z) = #p where no value is 0
"""

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.head import WORD, Buffer, Expr, Head
from gsb_tvm.schedules.counting import count_words, dot_of

Consume = Callable[[Expr, Expr, bool, Expr], None]  # row, word, whether it is the last, dots


@dataclass(frozen=True)
class Planes:
    """One product's operands.

    ``g`` and ``r`` choose the planes; ``nonzero`` is None where the counts of rows stand in
    ``counts`` instead.
    """

    g: Expr
    r: Expr
    positive: Buffer
    nonzero: Buffer
    counts: Buffer


def product(head: Head, planes: Planes, consume: Consume) -> None:
    """Call ``consume`` with the int32 dots of every row and 32 channels.

    Rows are computed in whole tiles: up to the padded tokens, some more than there are.
    """
    tile = head.parameters
    blocks = (head.channel_words - 1) // tile.words
    rest = head.channel_words - blocks * tile.words

    def rows_of(word: Expr, words: int, last: bool) -> None:
        with T.serial(-(-head.tokens // tile.rows)) as i:
            row = v.bind(i * tile.rows)
            dots = _tile(head, planes, row, word, (tile.rows, words))
            for m in range(tile.rows):
                for x in range(words):
                    consume(row + m, word + x, last and x == words - 1, dots[m * words + x])

    if blocks:
        with T.serial(blocks) as block:
            rows_of(v.bind(block * tile.words), tile.words, False)
    rows_of(T.int32(blocks * tile.words), rest, True)


def _tile(head: Head, planes: Planes, row: Expr, word: Expr, shape: tuple[int, int]) -> list[Expr]:
    rows, words = shape

    def counted(plane: Buffer) -> Buffer:
        def terms(k: Expr) -> list[Expr]:
            columns = [
                v.bind(v.load(plane, planes.r, k, (word + x) * WORD, lanes=WORD))
                for x in range(words)
            ]
            found = []
            for m in range(rows):
                left = v.bind(v.splat(head.attention(planes.g, k, row + m), WORD))
                found += [left & right for right in columns]
            return found

        return count_words(head.profile, head.key_words, WORD, rows * words, terms)

    positive = counted(planes.positive)
    nonzero = None if planes.nonzero is None else counted(planes.nonzero)
    dots = []
    for m in range(rows):
        for x in range(words):
            i = m * words + x
            all_of = (
                v.splat(planes.counts[row + m], WORD)
                if nonzero is None
                else dot_of(v.load(nonzero, i, 0, lanes=WORD), WORD)
            )
            twice = v.splat(2, WORD, "int32") * dot_of(v.load(positive, i, 0, lanes=WORD), WORD)
            dots.append(twice - all_of)
    return dots
