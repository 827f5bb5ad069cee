"""Softmax numerators from a table in registers: Neon, sign planes, at most 64 features a head.

Such a head's scores depend on one count s of equal signs, a byte, and the largest score of a row is
that of its largest count. A table with a row for every largest count holds exp(x(s) - x(largest)):
the same exponentials as the general path, bit for bit. A row is kept as its bytes, lowest first,
each in three or four registers, which ``tbl`` looks 16 counts up in.

Padding bits of a head are equal and counted, so 0 <= s <= 32 * words. A count of 64 has no place in
the registers: a row that has it is looked up number by number.
"""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import AttentionPlanes, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import byte_vectors, scores
from gsb_tvm.schedules.attention_planes.table import MOST_SLOTS
from gsb_tvm.schedules.neon import BYTES
from gsb_tvm.targets import Profile

FLOAT_BYTES = 4


def applies(spec: AttentionPlanes, profile: Profile) -> bool:
    """Whether heads whose planes hold no zeros may use the table."""
    kinds = {scores.as_signs(spec.query_kind), scores.as_signs(spec.key_kind)}
    fits = spec.increasing and spec.q.width <= MOST_SLOTS
    return profile.has_neon and kinds == {Kind.SIGN} and fits


class Table:
    """The table of a spec, filled at the start of the kernel."""

    def __init__(self, spec: AttentionPlanes, scalars: v.Buffer) -> None:
        self.most = WORD_BITS * words(spec.q.width)
        self.slots = min(MOST_SLOTS, self.most + BYTES)
        rows = min(self.slots, self.most + 1)
        self.planes = v.workspace((rows, FLOAT_BYTES, self.slots), "uint8")
        x = v.local((self.most + BYTES,), "float32")
        for first in range(0, self.most + BYTES, BYTES):
            counts = T.ramp(2 * first, 2, BYTES)
            dots = counts + v.splat(spec.q.width - 2 * self.most, BYTES, "int32")
            v.store(x, scores.scaled(spec, scalars, dots, BYTES), first, lanes=BYTES)
        with T.serial(rows) as largest, T.serial(largest // BYTES + 1) as block:
            slot = v.bind(block * BYTES)
            quads = [_numerators(x, largest, slot + i, 4) for i in range(0, BYTES, 4)]
            for byte, plane in enumerate(byte_vectors.byte_planes(quads)):
                v.store(self.planes, plane, largest, byte, slot, lanes=BYTES)
        self.beyond = None
        if self.most == self.slots:
            self.beyond = v.local((self.most + BYTES,), "float32")
            for slot in range(0, self.most + BYTES, BYTES):
                v.store(self.beyond, _numerators(x, self.most, slot, BYTES), slot, lanes=BYTES)

    def row(self, largest: v.Expr) -> list[list[v.Expr]]:
        """Registers of the row for a largest count that has a slot, by byte."""
        return [
            [
                v.bind(v.load(self.planes, largest, byte, slot, lanes=BYTES))
                for slot in range(0, self.slots, BYTES)
            ]
            for byte in range(FLOAT_BYTES)
        ]


def look_up(row: list[list[v.Expr]], counts: v.Expr) -> list[v.Expr]:
    """Entries for 16 counts, four vectors of four; 0 for a count of 255."""
    return byte_vectors.floats([v.bind(byte_vectors.look_up(t, counts)) for t in row])


def _numerators(x: v.Buffer, largest: v.Expr, slot: v.Expr, lanes: int) -> v.Expr:
    difference = v.load(x, slot, lanes=lanes) - v.splat(x[largest], lanes)
    # A count above the largest is never looked up; exp must not see its difference.
    return v.bind(v.exp(v.bind(v.minimum(difference, v.splat(0.0, lanes))), lanes))
