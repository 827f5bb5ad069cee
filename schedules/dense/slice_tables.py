"""Tables of what a few features add to the sums of 128 columns, by the pattern of a token's bits.

A word of features is cut into groups of 7, 7, 6, 6 and 6. What counts of a group is the number of
features in which a pattern equals the weights, 0 to 7. Its lowest bit is the parity of the weights
or its complement, by the parity of the pattern. So a table for each group holds the two higher bits
only, and one for the word the sum of the five lowest ones, by the parities of five patterns. Those
are found once for each word of a token and serve all columns.

Entries of a pattern of a few words stand together, so that one address serves two loads each.
"""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules.dense.bit_sums import LANES, full_add, half_add, kept, opaque, select
from gsb_tvm.schedules.dense.tiles import SLICE_STEP
from gsb_tvm.schedules.vector import bind, hidden, load, local, store, workspace

Expr = Any
Buffer = Any

SUB_BLOCKS = LANES  # of 32 columns, the lanes of a plane
GROUPS = ((0, 7), (7, 7), (14, 6), (20, 6), (26, 6))  # first feature and size
ENTRY = 2 * LANES  # uint32 of an entry of a group
SUM = 3 * LANES  # of an entry of lowest bits
PATTERNS, PARITIES = 128, 2 ** len(GROUPS)
STEP = SLICE_STEP  # words whose entries of a pattern stand together: instructions reach all
PATTERN = STEP * len(GROUPS) * ENTRY + LANES  # uint32: LLVM multiplies and adds in one
TABLE = PATTERNS * PATTERN  # uint32 of the tables of so many words
SUMS = PARITIES * STEP * SUM


class Tables:
    """Room for the tables of ``words`` words of features."""

    def __init__(self, words: int) -> None:
        steps = -(-words // STEP)
        self.groups = workspace((steps * TABLE,), "uint32")
        self.sums = workspace((steps * SUMS,), "uint32")

    def look_up(
        self, step: Expr, word: int, bits: Expr, parities: Expr
    ) -> list[tuple[int, list[Expr]]]:
        """Numbers of a token's word, each with the weight of its first plane.

        ``step`` is int64, ``word`` counts in the step; ``parities`` is of :func:`find_parities`.
        """
        at = bind(step * SUMS + T.cast(parities, "int64"))
        places = (word * SUM + p * LANES for p in range(3))
        found = [(0, [kept(load(self.sums, at + place, lanes=LANES)) for place in places])]
        for group, (first, size) in enumerate(GROUPS):
            pattern = bits >> T.uint32(first)
            if first + size < WORD_BITS:
                pattern = pattern & T.uint32(2**size - 1)
            at = bind(step * TABLE + T.cast(pattern, "int64") * PATTERN)
            places = ((word * len(GROUPS) + group) * ENTRY + p * LANES for p in range(2))
            found.append(
                (1, [kept(load(self.groups, at + place, lanes=LANES)) for place in places])
            )
        return found

    def build(self, at: Expr, weight: Buffer, block: Expr, word: Expr) -> None:
        """Fill in word ``word`` of the columns of ``block``, as the ``at``-th.

        ``weight`` is (tiles of 32 columns, words, 32) uint32.
        """
        features = _by_feature(weight, block, word)
        groups = [features[first : first + size] for first, size in GROUPS]
        step, place = T.floordiv(at, STEP), T.floormod(at, STEP)
        _build_sums(self.sums, bind(T.cast(step, "int64") * SUMS + place * SUM), groups)
        for i, group in enumerate(groups):
            here = bind(T.cast(step, "int64") * TABLE + place * (len(GROUPS) * ENTRY) + i * ENTRY)
            _build_group(self.groups, here, group)


def find_parities(bits: Expr) -> Expr:
    """Where the entry of the lowest bits stands for words of four tokens, uint32x4."""

    def shifted(vector: Expr, places: int) -> Expr:
        return vector >> T.broadcast(T.uint32(places), LANES)

    three = kept(bits ^ shifted(bits, 1) ^ shifted(bits, 2))
    six = kept(three ^ shifted(three, 3))
    seven = kept(six ^ shifted(bits, 6))
    total = T.broadcast(T.uint32(0), LANES)
    for i, (first, size) in enumerate(GROUPS):
        parity = shifted(seven if size == 7 else six, first) & T.broadcast(T.uint32(1), LANES)
        total = kept(total + (parity << T.broadcast(T.uint32(i), LANES)))
    return total * T.broadcast(T.uint32(STEP * SUM), LANES)


def _by_feature(weight: Buffer, block: Expr, word: Expr) -> list[Expr]:
    """A word's 32 features, each a plane of 128 columns."""
    rows: list[Expr] = []
    for column in range(0, WORD_BITS, LANES):
        quads = [
            kept(load(weight, block * SUB_BLOCKS + i, word, column, lanes=LANES))
            for i in range(SUB_BLOCKS)
        ]
        rows += turned(quads)
    for distance in (16, 8, 4, 2, 1):
        _swap(rows, distance)
    return rows


def turned(rows: list[Expr]) -> list[Expr]:
    """Four vectors of four lanes, transposed."""
    a, b, c, d = rows
    low, high = [0, 4, 1, 5], [2, 6, 3, 7]
    ac = [kept(T.Shuffle([a, c], order)) for order in (low, high)]
    bd = [kept(T.Shuffle([b, d], order)) for order in (low, high)]
    return [
        kept(T.Shuffle([x, y], order)) for x, y in zip(ac, bd, strict=True) for order in (low, high)
    ]


def _swap(rows: list[Expr], distance: int) -> None:
    """Exchange squares of ``distance`` bits: a round of the transposition of 32 x 32 bits."""
    keep = sum(1 << i for i in range(WORD_BITS) if not i & distance)
    mask, shift = (T.broadcast(T.uint32(value), LANES) for value in (keep, distance))
    for i in range(WORD_BITS):
        if not i & distance:
            a, b = rows[i], rows[i + distance]
            rows[i] = kept((a & mask) | ((b << shift) & ~mask))
            rows[i + distance] = kept(((a >> shift) & mask) | (b & ~mask))


def _either(plane: Expr) -> tuple[Expr, Expr]:
    """A plane's complement and itself: what equals a bit of 0, and of 1."""
    return kept(~plane), plane


def _build_sums(table: Buffer, at: Expr, groups: list[list[Expr]]) -> None:
    """Entries of the lowest bits: five planes or their complements, added."""
    planes = []
    for group in groups:
        total = group[0]
        for feature in group[1:]:
            total = kept(total ^ feature)
        # The parity of equal bits: of a pattern without any, that of all complements.
        planes.append((kept(~total), total) if len(group) % 2 else (total, kept(~total)))
    three = {bits: full_add(*(planes[i][bits >> i & 1] for i in range(3))) for bits in range(8)}
    for parities in range(PARITIES):
        total, first = three[parities % 8]
        unit, second = full_add(total, planes[3][parities >> 3 & 1], planes[4][parities >> 4])
        _put(table, at + parities * STEP * SUM, [unit, *half_add(first, second)])


def _build_group(table: Buffer, at: Expr, features: list[Expr]) -> None:
    """Entries of a group: its first three features, the next three, and one more, added.

    Of the three lowest bits only the carry is needed, which parities of patterns decide.
    """
    low, high = _numbers(features[:3]), _numbers(features[3:6])
    last = [_either(plane) for plane in features[6:]]
    cases = 1 + len(last)  # of the last feature
    carries = local((2, 2, cases, LANES), "uint32")
    for b in range(2):
        for a in range(2):
            for c in range(cases):
                units = low[a][0], high[b][0]
                carry = full_add(*units, last[0][c])[1] if last else units[0] & units[1]
                store(carries, carry, b, a, c, 0, lanes=LANES)
    upper_twos = local((8, LANES), "uint32")
    for pattern, (_, two) in enumerate(high):
        store(upper_twos, two, pattern, 0, lanes=LANES)
    half = T.cast(hidden(T.uint32(PATTERNS // 2 * PATTERN)), "int64")
    with T.serial(0, 8) as upper:
        here = bind(at + T.cast(upper, "int64") * (8 * PATTERN))
        bases = [here, bind(here + half)]
        odd = (upper ^ (upper >> 1) ^ (upper >> 2)) & 1
        y = kept(load(upper_twos, upper, 0, lanes=LANES))
        carry_in = [
            [kept(load(carries, odd, a, c, 0, lanes=LANES)) for c in range(cases)] for a in range(2)
        ]
        for lower, (_, x) in enumerate(low):
            differ = opaque(x ^ y)
            for c, carry in enumerate(carry_in[lower.bit_count() % 2]):
                entry = [kept(differ ^ carry), select(differ, carry, x)]
                _put(table, bases[c] + lower * PATTERN, entry)


def _numbers(features: list[Expr]) -> list[tuple[Expr, Expr]]:
    """In how many of three features each of 8 patterns equals the weights: two planes.

    Patterns that differ everywhere have numbers that do.
    """
    either = [_either(feature) for feature in features]
    half = [full_add(*(either[i][pattern >> i & 1] for i in range(3))) for pattern in range(4)]
    return half + [(kept(~unit), kept(~two)) for unit, two in reversed(half)]


def _put(table: Buffer, at: Expr, entry: list[Expr]) -> None:
    for plane, value in enumerate(entry):
        store(table, value, at + plane * LANES, lanes=LANES)
