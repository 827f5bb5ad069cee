"""Tile numbers of the float kernels, over grids of sizes."""

import pytest

from gsb_tvm.schedules.float.tiles import (
    MAX_VECTORS,
    fitting_lanes,
    product_tile,
    product_tiles,
    rows_at_once,
    rows_of_block,
)


@pytest.mark.parametrize("registers", [16, 32])
@pytest.mark.parametrize("height", [1, 2, 7, 196, 198, 384])
@pytest.mark.parametrize("vectors", [1, 2, 13, 24, 63, 96])
def test_product_tiles_fit_the_registers(registers: int, height: int, vectors: int) -> None:
    tiles = product_tiles(height, vectors, registers)
    assert tiles[0] == product_tile(height, vectors, registers)
    assert len(set(tiles)) == len(tiles)
    for r, v in tiles:
        assert 1 <= r <= height
        assert 1 <= v <= min(vectors, MAX_VECTORS)
        assert r * v + v + 1 <= registers


@pytest.mark.parametrize("count", range(1, 40))
def test_fitting_lanes_is_the_largest_power(count: int) -> None:
    lanes = fitting_lanes(count, 16)
    assert lanes <= min(count, 16) < 2 * lanes or lanes == 16


@pytest.mark.parametrize("width", [1, 7, 14, 56])
@pytest.mark.parametrize("height", [1, 7, 14, 56])
@pytest.mark.parametrize("most", [1, 50, 1000, 10000])
def test_blocks_fit_the_cache(height: int, width: int, most: int) -> None:
    rows = rows_of_block(height, width, 16, most)
    assert 1 <= rows <= height
    assert rows == 1 or rows * width <= most


@pytest.mark.parametrize("height", range(1, 40))
def test_tiles_of_rows_are_alike(height: int) -> None:
    rows = rows_at_once(height)
    tiles = -(-height // rows)
    assert 1 <= rows <= 8
    assert tiles == -(-height // 8)
    assert tiles * rows - height < tiles
