"""Reading the parts of packed planes."""

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.dense.formula import Part, Product
from gsb_tvm.schedules.vector import local, popcount, splat

Expr = Any
Buffer = Any


@dataclass(frozen=True)
class Plane:
    """Bits of a plane, and which of its elements are not zero where that is known."""

    bits: Buffer
    nonzero: Buffer | None

    def read(self, part: Part, *index: Expr) -> Expr:
        """Words of one part."""
        value = self.bits[index]
        if part is Part.BITS:
            return value
        assert self.nonzero is not None
        return (value if part is Part.POSITIVE else ~value) & self.nonzero[index]


def column_base(
    weight: Plane, product: Product, tile: Expr, words: int, columns: int, lanes: int
) -> Buffer:
    """popc(w) of every column of a tile, or popc(p) - popc(m), as int32."""
    vectors = -(-columns // lanes)
    base = local((vectors * lanes,), "int32")
    with T.serial(0, vectors) as v:
        at = T.ramp(v * lanes, 1, lanes)
        T.buffer_store(base, splat(0, lanes, "int32"), [at])
        with T.serial(0, words) as k:
            for term in product.terms:
                count = popcount(weight.read(term.weight, tile, k, at))
                count = T.cast(count, f"int32x{lanes}")
                T.buffer_store(base, base[at] + count if term.sign > 0 else base[at] - count, [at])
    return base
