"""Transposition of a float32 matrix in square blocks that fit the registers."""

from collections.abc import Sequence

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.vector import Buffer, Expr

QUAD = 4  # lanes of 128 bits, inside which x86 shuffles are cheapest


def transpose(source: Buffer, target: Buffer, column: Expr, lanes: int) -> None:
    """``target[j, column + i] = source[i, j]``; sizes are multiples of ``lanes`` (4, 8 or 16)."""
    rows, columns = (int(size) // lanes for size in source.shape)
    with T.serial(columns) as j, T.serial(rows) as i:
        block = [
            v.bind(v.load(source, i * lanes + row, j * lanes, lanes=lanes)) for row in range(lanes)
        ]
        for row, turned in enumerate(transpose_block(block)):
            v.store(target, turned, j * lanes + row, column + i * lanes, lanes=lanes)


def transpose_block(rows: Sequence[Expr]) -> list[Expr]:
    """Transpose as many vectors as they have lanes.

    First every 4x4 square inside 128 bits, with two rounds of interleaving; then the squares among
    each other, halves of ever larger distance exchanged between pairs of vectors.
    """
    lanes = len(rows)
    squares: list[Expr] = []
    for i in range(0, lanes, QUAD):
        a, b, c, d = rows[i : i + QUAD]
        low = [_pick(x, y, _interleaved(lanes, (0, 1))) for x, y in ((a, b), (c, d))]
        high = [_pick(x, y, _interleaved(lanes, (2, 3))) for x, y in ((a, b), (c, d))]
        for first, second in (low, high):
            squares += [_pick(first, second, _paired(lanes, start)) for start in (0, 2)]
    distance = QUAD
    while distance < lanes:
        for i in range(lanes):
            if i & distance:
                continue
            upper, lower = squares[i], squares[i + distance]
            keep = [x if not x & distance else lanes + x - distance for x in range(lanes)]
            move = [x + distance if not x & distance else lanes + x for x in range(lanes)]
            squares[i] = _pick(upper, lower, keep)
            squares[i + distance] = _pick(upper, lower, move)
        distance *= 2
    return squares


def _pick(a: Expr, b: Expr, index: list[int]) -> Expr:
    return v.bind(T.Shuffle([a, b], index))


def _interleaved(lanes: int, of_quad: tuple[int, int]) -> list[int]:
    return [
        quad + x + side * lanes
        for quad in range(0, lanes, QUAD)
        for x in of_quad
        for side in (0, 1)
    ]


def _paired(lanes: int, start: int) -> list[int]:
    return [
        quad + start + x + side * lanes
        for quad in range(0, lanes, QUAD)
        for side in (0, 1)
        for x in (0, 1)
    ]
