"""Floats of tokens to words of planes: a warp for each token, a lane for each bit of a word.

A block takes some neighbouring tokens; their words go through shared memory, so that words of
neighbouring tokens are written side by side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, Rows, padded_tokens, words
from gsb_tvm.schedules.cuda.grid import WARP, Place, each, registers, shared
from gsb_tvm.schedules.cuda.warp import ballot
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put
from gsb_tvm.targets import Profile

HELD = 48
"""Words of a row up to which its elements stay in registers, one of each lane for each word."""

_SHARED_WORDS = 12 << 10  # of a block


@dataclass(frozen=True)
class Parameters:
    """Of one kernel: tokens of a block, and its warps, among which they are shared."""

    tokens: int
    warps: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.warps * WARP

    def blocks(self, rows: Rows) -> int:
        """Blocks of a launch."""
        return rows.batch * -(-rows.tokens // self.tokens)


def space(rows: Rows, planes: int) -> list[Parameters]:
    """More or fewer tokens and warps; ``planes`` is how many are written."""
    count = planes * rows.packed_shape[1]
    found = [
        Parameters(tokens, warps)
        for tokens in (32, 16, 8, 4, 2, 1)
        for warps in (16, 8, 4, 2, 1)
        if warps <= tokens and count * tokens <= _SHARED_WORDS
    ]
    return found or [Parameters(1, 1)]


def rule(rows: Rows, planes: int, profile: Profile) -> Parameters:
    """As many tokens as leave a block for each multiprocessor, up to a line of the cache."""
    gpu = profile.gpu
    assert gpu is not None
    fitting = [p for p in space(rows, planes) if p.warps == min(p.tokens, 8)]
    enough = (p for p in fitting if p.blocks(rows) >= gpu.multiprocessors)
    return next(enough, fitting[-1])


@dataclass(frozen=True)
class Word:
    """A word of a row.

    Attributes
    ----------
    number
        Of the row.
    feature
        This lane's.
    exists
        Whether there is such a feature.
    real
        A bit for each lane with one.
    read
        This lane's element.
    """

    number: Expr
    feature: Expr
    exists: Expr
    real: Expr
    read: Callable[[], Expr]


class Row:
    """Elements of a token ``x[batch, token]``; float32 (batch, tokens, features)."""

    def __init__(self, rows: Rows, x: Buffer, batch: Expr, token: Expr, lane: Expr) -> None:
        self._rows, self._x, self._batch, self._token, self._lane = rows, x, batch, token, lane
        self._count = rows.packed_shape[1]
        self._is_held = self._count <= HELD
        if self._is_held:
            self._held = registers(self._count, "float32")
            for number in range(self._count):
                feature, exists, _ = self._place(T.int32(number))
                put(self._held, self._load(feature, exists), number)

    def _place(self, number: Expr) -> tuple[Expr, Expr, Expr]:
        width = self._rows.width
        per_group = words(width)
        group, word = number // per_group, number % per_group
        inside = word * WORD_BITS + self._lane
        every = T.uint32((1 << WORD_BITS) - 1)
        feature = bind(group * width + inside)
        rest = width % WORD_BITS
        if not rest:
            return feature, T.bool(True), every
        real = T.Select(word == per_group - 1, T.uint32((1 << rest) - 1), every)
        return feature, bind(inside < width), real

    def _load(self, feature: Expr, exists: Expr) -> Expr:
        value = self._x[self._batch, self._token, feature]
        if self._rows.width % WORD_BITS == 0:
            return value
        return T.if_then_else(exists, value, T.float32(0))

    def each_word(self) -> Iterator[Word]:
        """All words, one after another."""
        if self._is_held:
            for number in range(self._count):
                place = self._place(T.int32(number))
                yield Word(T.int32(number), *place, partial(self._element, number))
            return
        with T.serial(self._count) as number:
            feature, exists, real = self._place(number)
            yield Word(number, feature, exists, real, lambda: bind(self._load(feature, exists)))

    def _element(self, number: int) -> Expr:
        return self._held[number]

    def sum(self, of: Callable[[Expr], Expr]) -> Expr:
        """Sum of ``of`` each element of this lane."""
        total = registers(1, "float32")
        put(total, T.float32(0), 0)
        for word in self.each_word():
            value = of(word.read())
            if self._rows.width % WORD_BITS:
                value = T.Select(word.exists, value, T.float32(0))
            put(total, total[0] + value, 0)
        return total[0]


class Block:
    """Tokens of one block, and the words of its planes in shared memory."""

    def __init__(self, rows: Rows, parameters: Parameters, place: Place, planes: int) -> None:
        self._rows, self._parameters, self._place = rows, parameters, place
        per_image = -(-rows.tokens // parameters.tokens)
        self._batch = bind(place.block[0] // per_image)
        self._first = bind(place.block[0] % per_image * parameters.tokens)
        self._count = rows.packed_shape[1]
        self._words = shared((planes, self._count, parameters.tokens), "uint32")

    def each_token(self, x: Buffer, body: Callable[[Row, Expr], None]) -> None:
        """``body(row, at)`` of each token of this warp, ``at`` its place in the block."""
        tokens, warps = self._parameters.tokens, self._parameters.warps
        for turn in range(-(-tokens // warps)):
            at = bind(self._place.warp + turn * warps)
            token = bind(self._first + at)
            exists = token < self._rows.tokens
            if tokens % warps:
                exists = T.And(exists, at < tokens)
            with T.If(exists), T.Then():
                body(Row(self._rows, x, self._batch, token, self._place.lane), at)

    def keep(self, plane: int, word: Word, at: Expr, bit: Expr) -> Expr:
        """Keep the word that the lanes' bits make, and return it."""
        found = ballot(T.And(bit, word.exists))
        with T.If(self._place.lane == 0), T.Then():
            put(self._words, found, plane, word.number, at)
        return found

    def store(self, targets: Sequence[tuple[Buffer, tuple[int, ...]]]) -> None:
        """Write every plane to its target: a buffer, and the index of the plane there."""
        tokens, padded = self._parameters.tokens, padded_tokens(self._rows.tokens)
        for plane, (buffer, index) in enumerate(targets):

            def store(
                unit: Expr,
                plane: int = plane,
                buffer: Buffer = buffer,
                index: tuple[int, ...] = index,
            ) -> None:
                word, at = bind(unit // tokens), bind(unit % tokens)
                with T.If(self._first + at < padded), T.Then():
                    where = [*index, self._batch, word, self._first + at]
                    T.buffer_store(buffer, self._words[plane, word, at], where)

            each(self._place, self._count * tokens, store)
