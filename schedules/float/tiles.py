"""Tile numbers of the float kernels: pure functions of shapes and machine."""

from dataclasses import dataclass

CHAINS = 4  # independent vector sums along a row: covers the latency of an add on two units
COLUMN_VECTORS = 8  # vectors of columns summed at once: half of the smallest register file


@dataclass(frozen=True)
class Vectors:
    """Loops of vectors: lanes of one, and how many are summed at once along and across rows."""

    lanes: int
    chains: int = CHAINS
    columns: int = COLUMN_VECTORS


def fitting_lanes(count: int, lanes: int) -> int:
    """Largest power of two with ``result <= lanes`` and ``result <= count``."""
    return min(lanes, 1 << (count.bit_length() - 1))


MAX_VECTORS = 8


def product_tile(rows: int, vectors: int, registers: int) -> tuple[int, int]:
    """Register tile of a matrix product: rows and vectors with the least estimated time.

    ``rows * vectors`` sums, a vector of each column and one broadcast must fit:
    ``r * v + v + 1 <= registers``. A step of the contracted axis costs a tile ``max(r * v, r + v,
    8)`` half cycles: multiply-adds, loads, or the latency of a multiply-add. Ragged rows and
    columns repeat work, so the number of tiles counts as it is.
    """
    return product_tiles(rows, vectors, registers)[0]


def product_tiles(rows: int, vectors: int, registers: int) -> list[tuple[int, int]]:
    """All register tiles that fit, by the estimate of :func:`product_tile`; larger ones first."""

    def cost(tile: tuple[int, int]) -> tuple[int, int]:
        r, v = tile
        whole, rest = divmod(vectors, v)
        each = whole * _step(r, v) + (_step(r, rest) if rest else 0)
        return -(-rows // r) * each, -r * v

    tiles = [
        (r, v)
        for v in range(1, min(MAX_VECTORS, vectors) + 1)
        for r in range(1, min(rows, (registers - 1) // v - 1) + 1)
    ]
    return sorted(tiles, key=cost)


def _step(rows: int, vectors: int) -> int:
    return max(rows * vectors, rows + vectors, 8)


def rows_at_once(height: int, most: int = COLUMN_VECTORS) -> int:
    """Rows of a sliding window's tile: alike in all tiles, at most ``most``."""
    tiles = -(-height // most)
    return -(-height // tiles)


def rows_of_block(height: int, width: int, lanes: int, most: int) -> int:
    """Rows of ``width`` positions read at a time: of ``height``, with the fewest vectors in all.

    Not more than ``most`` positions, but at least a row. Ragged blocks and vectors repeat work.
    """

    def vectors(rows: int) -> int:
        return -(-height // rows) * -(-rows * width // lanes)

    fitting = [rows for rows in range(1, height + 1) if rows == 1 or rows * width <= most]
    return min(fitting, key=lambda rows: (vectors(rows), -rows))
