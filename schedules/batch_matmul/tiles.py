"""Register tile of the general product of two live tensors."""

from dataclasses import dataclass

from gsb_tvm.targets.profile import Profile

LANES = 16  # keys of one word are padded to 16; narrower machines take them in pieces
UNROLLED = 160  # vectors counted in straight code: keeps the time to compile near a second


@dataclass(frozen=True)
class Tile:
    """Rows of ``a`` and vectors of 16 tokens of ``b`` that one register tile covers."""

    rows: int
    vectors: int


def choose(profile: Profile, a_tokens: int, b_tokens: int, passes: int) -> Tile:
    """Largest tile whose counters, one row of operands and constants stay in registers.

    ``rows * vectors * (512 / vector_bits) + vectors * (512 / vector_bits) + 3 <= registers`` on
    AVX-512 (32 registers) and NEON (32); half of the registers are kept free on AVX2 and the x86
    baseline (16), where counting a byte needs temporaries of its own. Each of the ``passes`` counts
    has its own copy of the tile: rows are halved while ``rows * vectors * passes > UNROLLED``.
    """
    if profile.vector_bits == 512:
        tile = Tile(6, 4) if profile.has_vpopcntdq else Tile(4, 4)
    elif profile.vector_bits == 256:
        tile = Tile(4, 1)
    else:
        tile = Tile(4, 1) if profile.has_neon else Tile(2, 1)
    rows, vectors = min(tile.rows, a_tokens), min(tile.vectors, -(-b_tokens // LANES))
    while rows > 1 and rows * vectors * passes > UNROLLED:
        rows //= 2
    return Tile(rows, vectors)
