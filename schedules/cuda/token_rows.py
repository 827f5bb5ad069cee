"""Floats of tokens to words of planes: warps for each token, a lane for each bit of a word.

A block takes some neighbouring tokens of all images; their words go through shared memory, so that
words of neighbouring tokens are written side by side. No warp has less to do than another: where
tokens or words run out, the last are done twice, so that all lanes come to every ballot and
compilers see that they do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, Rows, words
from gsb_tvm.schedules.cuda.choosing import filling
from gsb_tvm.schedules.cuda.grid import WARP, Place, each, registers, shared, synchronize
from gsb_tvm.schedules.cuda.warp import ballot, combined
from gsb_tvm.schedules.vector import Buffer, Expr, add, bind, put
from gsb_tvm.targets import Profile

HELD = 48
"""Elements that a lane holds in registers, of all tokens that its warp has at once."""

_WORDS = 16  # of a token that one warp takes on by rule
_PARTS = (1, 2, 4, 8, 16)
_SHARED_WORDS = 11 << 10  # of a block: 44 KB, and sums beside them


@dataclass(frozen=True)
class Parameters:
    """Of one kernel: tokens of a block, its warps, and how many of them share a token."""

    tokens: int
    warps: int
    parts: int = 1

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    @property
    def teams(self) -> int:
        """Warps that share a token are a team."""
        return self.warps // self.parts

    def blocks(self, rows: Rows) -> int:
        """Blocks of a launch."""
        return -(-rows.batch * rows.tokens // self.tokens)

    def words(self, rows: Rows) -> int:
        """Words of a token that each warp takes."""
        return -(-rows.packed_shape[1] // self.parts)

    def together(self, rows: Rows) -> int:
        """Tokens that a warp has at once."""
        found = self.tokens // self.teams
        while found > 1 and found * self.words(rows) > HELD:
            found //= 2
        return found


def space(rows: Rows, planes: int) -> list[Parameters]:
    """More or fewer tokens and warps; ``planes`` is how many are written."""
    count = planes * rows.packed_shape[1]
    usual = _parts(rows)
    return [
        Parameters(tokens, warps, parts)
        for tokens in (32, 16, 8, 4, 2, 1)
        for warps in (16, 8, 4, 2, 1)
        for parts in _PARTS
        if usual <= 4 * parts <= 16 * usual
        if warps % parts == 0 and warps // parts <= tokens
        if tokens == 1 or count * tokens <= _SHARED_WORDS
    ]


def rule(rows: Rows, planes: int, profile: Profile) -> Parameters:
    """As many tokens as leave a block for each multiprocessor, up to a line of the cache."""
    parts = _parts(rows)
    fitting = [
        p
        for p in space(rows, planes)
        if p.parts == parts and p.teams == min(p.tokens, max(1, 8 // parts))
    ]
    return filling(fitting, lambda p: p.blocks(rows), profile) or fitting[-1]


def _parts(rows: Rows) -> int:
    """Warps for a token, so that none has too many of its words."""
    count = rows.packed_shape[1]
    return next((p for p in _PARTS if count <= p * _WORDS), _PARTS[-1])


@dataclass(frozen=True)
class Word:
    """A word of the tokens that a warp has.

    Attributes
    ----------
    number
        Of the row.
    feature
        This lane's; that of a lane beyond the row's width is the last.
    exists
        Whether this lane's is not another's again.
    real
        A bit for each lane whose is not.
    counts
        Whether ``exists`` and no other warp has the word.
    read
        This lane's element of one of the tokens.
    """

    number: Expr
    feature: Expr
    exists: Expr
    real: Expr
    counts: Expr
    read: Callable[[int], Expr]


class Tokens:
    """Elements of the tokens that a warp has at once; float32 ``x`` (batch, tokens, features)."""

    def __init__(self, block: "Block", x: Buffer, first: Expr, count: int) -> None:
        self.block, self._x, self.count = block, x, count
        rows = block.rows
        last = rows.batch * rows.tokens - 1
        self.at = [bind(first + k) for k in range(count)]
        self.rows = [bind(T.min(block.first + at, last)) for at in self.at]
        self._words = block.parameters.words(rows)
        self._held: Buffer | None = None

    def hold(self) -> None:
        """Read all elements into registers, unless there are too many."""
        if self._words > HELD:
            return
        self._held = registers(self.count * self._words, "float32")
        for k in range(self.count):
            for i in range(self._words):
                word = self._word(i)
                put(self._held, word.read(k), k * self._words + i)

    def _word(self, i: Expr) -> Word:
        """The i-th word of this warp, from memory."""
        rows, parts = self.block.rows, self.block.parameters.parts
        count, width = rows.packed_shape[1], rows.width
        number = bind(i * parts + self.block.part)
        is_first: Expr = T.bool(True)
        if count % parts:
            is_first = bind(number < count)
            number = bind(T.min(number, count - 1))
        per_group = words(width)
        group, word = bind(number // per_group), bind(number % per_group)
        inside = bind(word * WORD_BITS + self.block.place.lane)
        every, rest = T.uint32((1 << WORD_BITS) - 1), width % WORD_BITS
        exists, real = T.bool(True), every
        if rest:
            exists = bind(inside < width)
            real = T.Select(word == per_group - 1, T.uint32((1 << rest) - 1), every)
            inside = bind(T.min(inside, width - 1))
        feature = bind(group * width + inside)

        def read(k: int) -> Expr:
            row = self.rows[k]
            return bind(self._x[row // rows.tokens, row % rows.tokens, feature])

        return Word(number, feature, exists, real, T.And(exists, is_first), read)

    def each_word(self, held: bool = True) -> Iterator[Word]:
        """All words of this warp, one after another; elements from registers if ``held``."""
        if held and self._held is not None:
            for i in range(self._words):
                yield replace(self._word(i), read=partial(self._read_held, i))
            return
        with T.serial(self._words) as i:
            yield self._word(i)

    def _read_held(self, i: int, k: int) -> Expr:
        assert self._held is not None
        return self._held[k * self._words + i]

    def sums(self, extended: Callable[[int, Expr, Expr], Expr]) -> list[Expr]:
        """Of each token a sum, made by ``extended(token, sum, element)`` of each lane's.

        Every thread of the block must come. Warps that share tokens meet once: whoever calls this
        in a loop calls it twice in each turn, or not all have read a sum when the next is written.
        """
        total = registers(self.count, "float32")
        for k in range(self.count):
            put(total, T.float32(0), k)
        for word in self.each_word():
            for k in range(self.count):
                more = extended(k, total[k], word.read(k))
                put(total, T.Select(word.counts, more, total[k]), k)
        found = [combined(total[k], "float32", add) for k in range(self.count)]
        return found if self.block.parameters.parts == 1 else self._of_team(found)

    def _of_team(self, mine: list[Expr]) -> list[Expr]:
        parameters, block = self.block.parameters, self.block
        sums = shared((parameters.teams, self.count, parameters.parts), "float32")
        with T.If(block.place.lane == 0), T.Then():
            for k in range(self.count):
                put(sums, mine[k], block.team, k, block.part)
        synchronize()
        found = []
        for k in range(self.count):
            total: Expr = sums[block.team, k, 0]
            for part in range(1, parameters.parts):
                total = total + sums[block.team, k, part]
            found.append(bind(total))
        return found


class Block:
    """Tokens of one block, and the words of its planes in shared memory."""

    def __init__(self, rows: Rows, parameters: Parameters, place: Place, planes: int) -> None:
        self.rows, self.parameters, self.place, self._planes = rows, parameters, place, planes
        self.first = bind(place.block[0] * parameters.tokens)
        self.team = bind(place.warp // parameters.parts)
        self.part = bind(place.warp % parameters.parts)
        self._count = rows.packed_shape[1]
        self._words = shared((planes, self._count, parameters.tokens), "uint32")

    def each_tokens(
        self, x: Buffer, body: Callable[[Tokens], None], together: int | None = None
    ) -> None:
        """``body`` of all tokens of this warp, ``together`` at once: else those it can hold."""
        of_team = self.parameters.tokens // self.parameters.teams
        count = together or self.parameters.together(self.rows)
        first = bind(self.team * of_team)
        if of_team == count:
            body(Tokens(self, x, first, count))
            return
        with T.serial(of_team // count) as turn:
            body(Tokens(self, x, bind(first + turn * count), count))

    def keep(self, plane: int, word: Word, at: Expr, bit: Expr) -> Expr:
        """Keep the word that the lanes' bits make, and return it."""
        found = ballot(T.And(bit, word.exists))
        with T.If(self.place.lane == 0), T.Then():
            put(self._words, found, plane, word.number, at)
        return found

    def clear(self) -> None:
        """Zeros, until words are kept: for all threads to see."""
        tokens, of_plane = self.parameters.tokens, self._count * self.parameters.tokens

        def zero(unit: Expr) -> None:
            plane, word = bind(unit // of_plane), bind(unit % of_plane // tokens)
            put(self._words, T.uint32(0), plane, word, unit % tokens)

        each(self.place, self._planes * of_plane, zero)
        synchronize()

    def store(self, targets: Sequence[tuple[Buffer, tuple[int, ...]]]) -> None:
        """Write every plane to its target: a buffer, and the index of the plane there."""
        rows, tokens = self.rows, self.parameters.tokens
        total = rows.batch * rows.tokens

        def store(plane: int, unit: Expr) -> None:
            buffer, index = targets[plane]
            word, at = bind(unit // tokens), bind(unit % tokens)
            row = bind(self.first + at)
            with T.If(row < total), T.Then():
                where = [*index, row // rows.tokens, word, row % rows.tokens]
                T.buffer_store(buffer, self._words[plane, word, at], where)

        for plane in range(len(targets)):
            each(self.place, self._count * tokens, partial(store, plane))
