"""What may be chosen of a general product of two live tensors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.dialect.specs import BatchMatmul
from gsb_tvm.schedules.batch_matmul.formula import passes
from gsb_tvm.schedules.spaces import cuts, lanes_of
from gsb_tvm.targets.profile import Profile

ROWS = (1, 2, 3, 4, 6, 8, 12)
MOST_VECTORS = 8
UNROLLED = 160  # vectors counted in straight code: keeps the time to compile near a second


class Order(StrEnum):
    """Which loop is the outer one."""

    COLUMNS = "columns"
    """A block of columns stays in cache while all rows pass."""
    ROWS = "rows"
    """A tile of rows stays in cache while all columns pass."""


@dataclass(frozen=True)
class Parameters:
    """Register tile and loops.

    Attributes
    ----------
    rows
        Of ``a`` that a tile covers, at most those there are.
    vectors
        Tokens of ``b`` that it covers, in vectors; at most those there are.
    lanes
        Tokens of such a vector: a divisor of 16, to which tokens are padded. Narrower machines
        take them in pieces.
    unrolled
        Vectors counted in straight code, of all pairs of planes: :func:`fitted_rows`.
    order
        Loop order.
    """

    rows: int
    vectors: int
    lanes: int
    unrolled: int
    order: Order


def fitted_rows(parameters: Parameters, passes: int) -> int:
    """Rows of a tile for which so many counts are made.

    Each has its own copy of the tile: rows are halved while ``rows * vectors * passes > unrolled``.
    """
    rows = parameters.rows
    while rows > 1 and rows * parameters.vectors * passes > parameters.unrolled:
        rows //= 2
    return rows


def rule(spec: BatchMatmul, profile: Profile) -> Parameters:
    """Largest tile whose counters, one row of operands and constants stay in registers.

    ``(rows * vectors + vectors) * (512 / vector_bits) + 3 <= registers`` on AVX-512 (32 registers)
    and NEON (32); half of the registers are kept free on AVX2 and the x86 baseline (16), where
    counting a byte needs temporaries of its own.
    """
    if profile.vector_bits == 512:
        rows, vectors = (6, 4) if profile.has_vpopcntdq else (4, 4)
    elif profile.vector_bits == 256:
        rows, vectors = 4, 1
    else:
        rows, vectors = (4, 1) if profile.has_neon else (2, 1)
    rows, vectors = min(rows, spec.a.tokens), min(vectors, -(-spec.b.tokens // TOKEN_ALIGN))
    return Parameters(rows, vectors, TOKEN_ALIGN, UNROLLED, Order.COLUMNS)


def space(spec: BatchMatmul, profile: Profile) -> Iterator[Parameters]:
    """Tiles that fit the registers, in both orders of loops, and more or less straight code."""
    registers = 32 if profile.has_avx512 or profile.has_neon else 16
    counts = [passes(spec, masked) for masked in (False, True)]
    found = set()
    for lanes in sorted({TOKEN_ALIGN, 8, *lanes_of(profile)}, reverse=True):
        pieces = max(1, lanes * WORD_BITS // profile.vector_bits)  # registers of a vector
        blocks = cuts(-(-spec.b.tokens // lanes), range(1, MOST_VECTORS + 1))
        for rows, vectors, unrolled in product(
            ROWS, blocks, (UNROLLED, UNROLLED // 2, UNROLLED * 2)
        ):
            if rows > spec.a.tokens or (rows + 1) * vectors * pieces + 3 > registers:
                continue
            tile = Parameters(rows, vectors, lanes, unrolled, Order.COLUMNS)
            code = (vectors, lanes, *[fitted_rows(tile, count) for count in counts])
            if code in found:
                continue
            found.add(code)
            yield from (replace(tile, order=order) for order in Order)
