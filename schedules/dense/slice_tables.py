"""Tables of what a few features add to the sums of 128 columns, by the pattern of a token's bits.

A word of features is cut into groups of 7, 7, 6, 6 and 6. What counts of a group is the number of
features in which a pattern equals the weights, 0 to 7. Its lowest bit is the parity of the weights
or its complement, by the parity of the pattern. So a table for each group holds the two higher bits
only, and one for the word the sum of the five lowest ones, by the parities of five patterns. Those
are found once for each word of a token and serve all columns.

Entries of a pattern of a few words stand together, so that one address serves two loads each.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules.dense.bit_squares import exchange, turned
from gsb_tvm.schedules.dense.bit_sums import LANES, full_add, half_add, kept, opaque, select
from gsb_tvm.schedules.dense.tiles import SLICE_STEP
from gsb_tvm.schedules.neon_walk import Trail
from gsb_tvm.schedules.vector import bind, load, local, store, workspace

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
TRAILS = ((ENTRY // LANES, PATTERN), (SUM // LANES, STEP * SUM))


class Order(Enum):
    """Which column bit k of lane i of a plane is of."""

    WORDS = "32 i + k: a plane is four packed words"
    NUMBERS = "64 (i // 2) + 8 (k % 8) + 4 (i % 2) + k // 8: eight planes turn into bytes"


class Tables:
    """Room for the tables of ``words`` words of features."""

    def __init__(self, words: int, order: Order) -> None:
        self.order = order
        steps = -(-words // STEP)
        self.groups = workspace((steps * TABLE,), "uint32")
        self.sums = workspace((steps * SUMS,), "uint32")
        self.group_trails = [Trail(*TRAILS[0]) for _ in range(2)]
        self.sum_trail = Trail(*TRAILS[1])

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
        features = _by_feature(weight, block, word, self.order)
        groups = [features[first : first + size] for first, size in GROUPS]
        step, place = T.floordiv(at, STEP), T.floormod(at, STEP)
        first = bind(T.cast(step, "int64") * SUMS + place * SUM)
        _build_sums(self.sum_trail.begin(self.sums, first), groups)
        for i, group in enumerate(groups):
            first = T.cast(step, "int64") * TABLE + place * (len(GROUPS) * ENTRY) + i * ENTRY
            ones = 2 ** len(group[:6]) * PATTERN  # where the last of seven features is set
            cases = 1 + len(group[6:])
            for c, trail in enumerate(self.group_trails[:cases]):
                trail.begin(self.groups, first + c * ones)
            _build_group(self.group_trails[:cases], group)


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


def _by_feature(weight: Buffer, block: Expr, word: Expr, order: Order) -> list[Expr]:
    """A word's 32 features, each a plane of 128 columns.

    Bits of 32 vectors are transposed: rounds over vectors that are at hand together, so that few
    of them wait.
    """
    rows: list[Expr] = [None] * WORD_BITS  # by bit of a lane
    for group in range(WORD_BITS // LANES):
        quads = []
        for lane in range(LANES):
            sub, column = divmod(_first_column(order, lane, group), WORD_BITS)
            quads.append(kept(load(weight, block * SUB_BLOCKS + sub, word, column, lanes=LANES)))
        here = slice(LANES * group, LANES * group + LANES)
        if order is Order.NUMBERS:
            here = slice(group, None, 8)
        rows[here] = turned(quads)
        _rounds(rows, here, (2, 1) if order is Order.WORDS else (16, 8))
    for i in range(LANES):
        if order is Order.WORDS:
            _rounds(rows, slice(i, None, LANES), (16, 8, 4))
        else:
            _rounds(rows, slice(8 * i, 8 * i + 8), (4, 2, 1))
    return rows


def _rounds(rows: list[Expr], here: slice, distances: Sequence[int]) -> None:
    for distance in distances:
        exchange(rows, range(WORD_BITS)[here], distance)


def _first_column(order: Order, lane: int, group: int) -> int:
    """First of the four columns that a lane of a group's vectors is of."""
    if order is Order.WORDS:
        return WORD_BITS * lane + LANES * group
    return 64 * (lane // 2) + 8 * group + LANES * (lane % 2)


def _either(plane: Expr) -> tuple[Expr, Expr]:
    """A plane's complement and itself: what equals a bit of 0, and of 1."""
    return kept(~plane), plane


def _build_sums(trail: Trail, groups: list[list[Expr]]) -> None:
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
        trail.put([unit, *half_add(first, second)])


def _build_group(trails: Sequence[Trail], features: list[Expr]) -> None:
    """Entries of a group: its first three features, the next three, and one more, added.

    Of the three lowest bits only the carry is needed, which parities of patterns decide. Each trail
    is for a case of the last of seven features.
    """
    low, high = _numbers(features[:3]), _numbers(features[3:6])
    last = [_either(plane) for plane in features[6:]]
    cases = len(trails)
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
    with T.serial(0, 8) as upper:
        odd = (upper ^ (upper >> 1) ^ (upper >> 2)) & 1
        y = kept(load(upper_twos, upper, 0, lanes=LANES))
        carry_in = [
            [kept(load(carries, odd, a, c, 0, lanes=LANES)) for c in range(cases)] for a in range(2)
        ]
        for lower, (_, x) in enumerate(low):
            differ = opaque(x ^ y)
            for trail, carry in zip(trails, carry_in[lower.bit_count() % 2], strict=True):
                trail.put([kept(differ ^ carry), select(differ, carry, x)])


def _numbers(features: list[Expr]) -> list[tuple[Expr, Expr]]:
    """In how many of three features each of 8 patterns equals the weights: two planes.

    Patterns that differ everywhere have numbers that do.
    """
    either = [_either(feature) for feature in features]
    half = [full_add(*(either[i][pattern >> i & 1] for i in range(3))) for pattern in range(4)]
    return half + [(kept(~unit), kept(~two)) for unit, two in reversed(half)]
