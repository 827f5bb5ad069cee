"""Softmax numerators from a table in registers: AVX-512, sign planes, at most 64 features a head.

Such a head's scores depend on one count c of differing bits, 0 <= c <= width, and the largest
score of a row is that of its smallest count. A table of width + 1 rows holds exp(x(c) - x(least))
for every least count and every c: the same exponentials as the general path, bit for bit. A row
is two or four registers, looked up by ``vpermi2ps``, which has no generic form in LLVM.

A row has ``slots`` entries for c modulo slots. Where width == slots, c = slots shares slot 0 with
c = 0: it stands there in every row but the first, whose users replace it by hand.
"""

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import AttentionPlanes, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import scores
from gsb_tvm.schedules.attention_planes.row import HALF
from gsb_tvm.targets import Profile

MOST_SLOTS = 64


def applies(spec: AttentionPlanes, profile: Profile) -> bool:
    """Whether heads whose planes hold no zeros may use the table."""
    kinds = {scores.as_signs(spec.query_kind), scores.as_signs(spec.key_kind)}
    fits = spec.increasing and spec.q.width <= MOST_SLOTS
    return profile.has_avx512 and kinds == {Kind.SIGN} and fits


class Table:
    """The table of a spec, filled at the start of the kernel."""

    def __init__(self, spec: AttentionPlanes, scalars: v.Buffer) -> None:
        self.spec, self.width = spec, spec.q.width
        self.slots = 32 if self.width <= 32 else MOST_SLOTS
        self.shared = self.width == self.slots
        self.rows = v.workspace((self.width + 2, self.slots), "float32")
        x = v.local((self.slots + HALF,), "float32")
        for first in range(0, self.slots + HALF, HALF):
            counts = T.ramp(2 * first, 2, HALF)
            dots = v.splat(self.width, HALF, "int32") - counts
            v.store(x, scores.scaled(spec, scalars, dots, HALF), first, lanes=HALF)
        self._fill(x, 0, 1)
        if self.shared:
            beyond = v.bind(v.load(x, self.slots, lanes=HALF) - v.splat(x[0], HALF))
            v.store(self.rows, v.exp(beyond, HALF), self.width + 1, 0, lanes=HALF)
            v.put(x, x[self.slots], 0)
        self._fill(x, 1, self.width)

    def _fill(self, x: v.Buffer, first: int, count: int) -> None:
        with T.serial(count) as i:
            least = v.bind(first + i)
            highest = v.bind(v.splat(x[least], HALF))
            for slot in range(0, self.slots, HALF):
                difference = v.load(x, slot, lanes=HALF) - highest
                # A count below the least is never looked up; exp must not see its difference.
                negative = v.bind(v.minimum(difference, v.splat(0.0, HALF)))
                v.store(self.rows, v.exp(negative, HALF), least, slot, lanes=HALF)

    def row(self, least: v.Expr) -> list[v.Expr]:
        """Registers of the row for the least count ``least``."""
        slots = range(0, self.slots, HALF)
        return [v.bind(v.load(self.rows, least, slot, lanes=HALF)) for slot in slots]

    def look_up(self, row: list[v.Expr], counts: v.Expr) -> v.Expr:
        """Entries for 16 counts, which must be bound."""
        found = [v.bind(_permute(row[i], counts, row[i + 1])) for i in range(0, len(row), 2)]
        if len(found) == 1:
            return found[0]
        upper = counts & v.splat(32, HALF, "int32")
        return T.Select(upper != v.splat(0, HALF, "int32"), found[1], found[0])

    def look_up_first(self, row: list[v.Expr], counts: v.Expr) -> v.Expr:
        """Entries in row 0, where the count ``slots`` would meet the entry of the count 0."""
        last = v.splat(self.rows[self.width + 1, 0], HALF)
        found = self.look_up(row, counts)
        return T.Select(counts == v.splat(self.slots, HALF, "int32"), last, found)


def _permute(low: v.Expr, index: v.Expr, high: v.Expr) -> v.Expr:
    name = "llvm.x86.avx512.vpermi2var.ps.512"
    return tirx.call_llvm_pure_intrin("float32x16", name, low, index, high)
