"""A block's tile of a product of planes of bits: panels in shared memory, counts in registers.

Rows of a and rows of b ("columns" of the product) are tokens or output columns; both come in the
word-major order of :mod:`gsb_tvm.dialect.bits`, so that of a word neighbouring rows are neighbours.
A panel holds some words of all rows of the tile; panels come in by asynchronous copies, some stages
ahead. Threads of a warp share its part of the tile as ``mma.m16n8k256`` wants it (``device.cuh``):
lane l has rows ``l / 4`` and ``l / 4 + 8`` of every 16, columns ``2 (l % 4)`` and the next of every
8. Where the machine has no such product the same threads count the same elements by themselves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS
from gsb_tvm.schedules.cuda.grid import (
    WARP,
    Place,
    address,
    do,
    each,
    registers,
    shared,
    synchronize,
)
from gsb_tvm.schedules.cuda.terms import Form, Terms
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put

MMA_ROWS, MMA_COLUMNS, MMA_WORDS = 16, 8, 8
HALF_WORDS = 4  # of the shorter product
COPY_WORDS = 4  # neighbours that one copy takes: 16 bytes
PLANES = ("bits", "nonzero")  # of a panel, in order
SKEW = 8  # words between rows of a panel beyond a multiple of 32, so that lanes meet no bank twice


class Method(StrEnum):
    """How bits are counted."""

    TENSOR = "tensor"  # products of bits on tensor cores
    BYTES = "bytes"  # of bits that are spread to bytes, on tensor cores too
    POPCOUNT = "popcount"  # words one by one

    def products(self, words: int) -> list[tuple[str, int, int]]:
        """What multiplies fragments of so many words of a row, one behind the other.

        Each is a function of ``device.cuh``, and where it begins among the words of a and of b that
        a lane has. Of bytes one step at a time, for all fragments: spread words are soon forgotten.
        """
        assert self is not Method.POPCOUNT
        if self is Method.TENSOR:
            return [(f"gsb_mma_{words * WORD_BITS}", 0, 0)]
        halves = range(words // HALF_WORDS)
        return [(f"gsb_bytes<{step}>", 2 * i, i) for i in halves for step in range(4)]


@dataclass(frozen=True)
class Shape:
    """Sizes of a tile.

    Attributes
    ----------
    rows, columns
        Of the block: multiples of 32, at least 16 and 8 for each warp.
    warp_rows, warp_columns
        Warps along them.
    words
        Of a panel: a multiple of 4.
    stages
        Panels in shared memory, at least 2.
    """

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    words: int
    stages: int
    method: Method = Method.TENSOR

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.warp_rows * self.warp_columns

    @property
    def row_tiles(self) -> int:
        """Products of a warp along rows."""
        return self.rows // self.warp_rows // MMA_ROWS

    @property
    def column_tiles(self) -> int:
        """Products of a warp along columns."""
        return self.columns // self.warp_columns // MMA_COLUMNS


def _stride(extent: int) -> int:
    """Words from one word of a row to the next: neighbouring words meet other banks."""
    return -(-extent // 32) * 32 + SKEW


def shared_bytes(shape: Shape, a_planes: int, b_planes: int) -> int:
    """Shared memory of a tile of planes."""
    words = a_planes * _stride(shape.rows) + b_planes * _stride(shape.columns)
    return 4 * (shape.stages * shape.words * words + shape.rows + shape.columns)


class Bits(StrEnum):
    """Bits of a plane: P of one without N, or P or N of one with both (:mod:`terms`)."""

    ALL = "all"
    POSITIVE = "positive"
    NEGATIVE = "negative"

    @staticmethod
    def of(form: Form, negative: bool) -> "Bits":
        """Those that a term of a form counts."""
        if not form.signed:
            return Bits.ALL
        return Bits.NEGATIVE if negative else Bits.POSITIVE

    def taken(self, plane: Callable[[str], Expr]) -> Expr:
        """Such bits of a word; ``plane`` gives its "bits", and "nonzero" where N counts."""
        bits = plane("bits")
        if self is Bits.ALL:
            return bits
        return plane("nonzero") & (~bits if self is Bits.NEGATIVE else bits)


class Panel:
    """One operand's words of a tile: ``planes`` of bits, of which the second, if any, is nonzero.

    ``source(plane, word, row)`` is where COPY_WORDS neighbouring rows' words lie in global memory,
    for a row of the tile that is a multiple of COPY_WORDS: a buffer and an index.
    """

    def __init__(
        self,
        shape: Shape,
        extent: int,
        planes: int,
        source: Callable[[int, Expr, Expr], tuple[Buffer, tuple[Expr, ...]]],
    ) -> None:
        self.extent, self.planes = extent, planes
        size = (shape.stages, planes, shape.words, _stride(extent))
        self._words = shared(size, "uint32")
        self._source = source

    def load(self, place: Place, stage: Expr, first: Expr, count: int, planes: int) -> None:
        """Begin to copy ``count`` words from ``first`` on; words up to a multiple of 4 are zero."""
        chunks = self.extent // COPY_WORDS
        rounded = -(-count // HALF_WORDS) * HALF_WORDS

        def copy(plane: int) -> Callable[[Expr], None]:
            def one(unit: Expr) -> None:
                word, row = bind(unit // chunks), bind(unit % chunks * COPY_WORDS)
                buffer, index = self._source(plane, first + word, row)
                to = address(self._words, stage, plane, word, row)
                do("gsb_copy", to, address(buffer, *index))

            return one

        for plane in range(planes):
            each(place, count * chunks, copy(plane))
            if rounded > count:
                clear = partial(self._clear, stage, plane, count)
                each(place, (rounded - count) * self.extent, clear)

    def _clear(self, stage: Expr, plane: int, first: int, unit: Expr) -> None:
        """Make one word from ``first`` on zero."""
        word, row = first + unit // self.extent, unit % self.extent
        put(self._words, T.uint32(0), stage, plane, word, row)

    def word(self, stage: Expr, word: Expr, row: Expr, bits: Bits) -> Expr:
        """A row's word of such bits."""
        return bits.taken(lambda plane: self._words[stage, PLANES.index(plane), word, row])


class Tile:
    """The tile of one block: its panels, and in registers what has been counted."""

    def __init__(self, shape: Shape, place: Place, words: int, a: Panel, b: Panel) -> None:
        self.shape, self.place = shape, place
        self._words, self._a, self._b = words, a, b
        self._counts = registers(shape.row_tiles * shape.column_tiles * 4, "int32")
        self._sums = shared((shape.rows + shape.columns,), "int32")
        warp_row = bind(place.warp // shape.warp_columns)
        warp_column = bind(place.warp % shape.warp_columns)
        self._group, self._member = bind(place.lane // 4), bind(place.lane % 4)
        self._first_row = bind(warp_row * (shape.row_tiles * MMA_ROWS))
        self._first_column = bind(warp_column * (shape.column_tiles * MMA_COLUMNS))

    def row(self, m: int, half: int) -> Expr:
        """Row of the block of this lane's fragment ``m``, upper or lower half."""
        return self._first_row + (m * MMA_ROWS + half * 8) + self._group

    def column(self, n: int) -> Expr:
        """First of the two neighbouring columns of this lane's fragment ``n``."""
        return self._first_column + n * MMA_COLUMNS + self._member * 2

    @property
    def first_column(self) -> Expr:
        """First column of this warp."""
        return self._first_column

    @property
    def member(self) -> Expr:
        """Place of this lane among the four that share a row."""
        return self._member

    def dot(self, m: int, n: int, half: int, j: int) -> Expr:
        """The product of this lane's row and the j-th of its two columns."""
        return self._counts[self._at(m, n) + half * 2 + j]

    def fragments(self) -> Iterator[tuple[int, int]]:
        """Every pair of a row tile and a column tile."""
        for m in range(self.shape.row_tiles):
            for n in range(self.shape.column_tiles):
                yield m, n

    def multiply(self, terms: Terms) -> None:
        """Compute all products, exactly; every thread of the block must come here."""
        size = self.shape.row_tiles * self.shape.column_tiles * 4
        for i in range(size):
            put(self._counts, T.int32(0), i)
        sums = _Sums(self, terms)
        if terms.negative:
            self._pass(terms, terms.negative, None)
            for i in range(size):
                put(self._counts, -self._counts[i], i)
            synchronize()
        self._pass(terms, terms.positive, sums)
        sums.publish()
        synchronize()
        for m, n in self.fragments():
            for half in range(2):
                for j in range(2):
                    at = self._at(m, n) + half * 2 + j
                    total = self._counts[at] * terms.factor + terms.constant
                    if terms.of_rows:
                        total = total + self._sums[self.row(m, half)] * terms.of_rows
                    if terms.of_columns:
                        column = self.shape.rows + self.column(n) + j
                        total = total + self._sums[column] * terms.of_columns
                    put(self._counts, total, at)

    def _at(self, m: int, n: int) -> int:
        return (m * self.shape.column_tiles + n) * 4

    def _pass(self, terms: Terms, pairs: list[tuple[bool, bool]], sums: "_Sums | None") -> None:
        """Add common bits of every pair, over all words."""
        shape = self.shape
        full, rest = divmod(self._words, shape.words)
        planes = 1 + terms.a.signed, 1 + terms.b.signed

        def load(chunk: Expr, count: int) -> None:
            stage, first = chunk % shape.stages, chunk * shape.words
            for panel, number in zip((self._a, self._b), planes, strict=True):
                panel.load(self.place, stage, first, count, number)

        def load_if_any(chunk: Expr) -> None:
            if full:
                with T.If(chunk < full), T.Then():
                    load(chunk, shape.words)
            if rest:
                with T.If(chunk == full), T.Then():
                    load(chunk, rest)

        def consume(chunk: Expr, count: int) -> None:
            do(f"gsb_wait<{shape.stages - 2}>")
            synchronize()
            load_if_any(chunk + (shape.stages - 1))
            do("gsb_commit")
            stage = chunk % shape.stages
            for of_a, of_b in pairs:
                self._count(stage, count, Bits.of(terms.a, of_a), Bits.of(terms.b, of_b))
            if sums is not None:
                sums.take(stage, count)

        for chunk in range(shape.stages - 1):
            if chunk < full:
                load(T.int32(chunk), shape.words)
            elif rest and chunk == full:
                load(T.int32(chunk), rest)
            do("gsb_commit")
        if full:
            with T.serial(full) as chunk:
                consume(chunk, shape.words)
        if rest:
            consume(T.int32(full), rest)

    def _count(self, stage: Expr, words: int, of_a: Bits, of_b: Bits) -> None:
        if self.shape.method is Method.POPCOUNT:
            self._count_words(stage, words, of_a, of_b)
            return
        rounded, first = -(-words // HALF_WORDS) * HALF_WORDS, 0
        while first < rounded:
            deep = MMA_WORDS if rounded - first >= MMA_WORDS else HALF_WORDS
            self._multiply_bits(stage, first, deep, of_a, of_b)
            first += deep

    def _multiply_bits(self, stage: Expr, first: int, deep: int, of_a: Bits, of_b: Bits) -> None:
        shape = self.shape
        steps = deep // HALF_WORDS
        a = registers(shape.row_tiles * 2 * steps, "uint32")
        b = registers(shape.column_tiles * steps, "uint32")
        for m in range(shape.row_tiles):
            for step in range(steps):
                for half in range(2):
                    word = self._member + (first + step * HALF_WORDS)
                    bits = self._a.word(stage, word, self.row(m, half), of_a)
                    put(a, bits, (m * steps + step) * 2 + half)
        for n in range(shape.column_tiles):
            for step in range(steps):
                word = self._member + (first + step * HALF_WORDS)
                column = self._first_column + n * MMA_COLUMNS + self._group
                put(b, self._b.word(stage, word, column, of_b), n * steps + step)
        for name, in_a, in_b in shape.method.products(deep):
            for m, n in self.fragments():
                counts = address(self._counts, self._at(m, n))
                left, right = address(a, m * steps * 2 + in_a), address(b, n * steps + in_b)
                do(name, counts, left, right)

    def _count_words(self, stage: Expr, words: int, of_a: Bits, of_b: Bits) -> None:
        shape = self.shape
        a = registers(shape.row_tiles * 2, "uint32")
        b = registers(shape.column_tiles * 2, "uint32")
        with T.serial(words) as word:
            for m in range(shape.row_tiles):
                for half in range(2):
                    bits = self._a.word(stage, word, self.row(m, half), of_a)
                    put(a, bits, m * 2 + half)
            for n in range(shape.column_tiles):
                for j in range(2):
                    bits = self._b.word(stage, word, self.column(n) + j, of_b)
                    put(b, bits, n * 2 + j)
            for m, n in self.fragments():
                for half in range(2):
                    for j in range(2):
                        at = self._at(m, n) + half * 2 + j
                        met = T.popcount(a[m * 2 + half] & b[n * 2 + j])
                        put(self._counts, self._counts[at] + T.cast(met, "int32"), at)


class _Sums:
    """Set bits of every row and column of the tile, each counted by one thread of the block."""

    def __init__(self, tile: Tile, terms: Terms) -> None:
        self._tile = tile
        shape = tile.shape
        rows = shape.rows if terms.of_rows else 0
        columns = shape.columns if terms.of_columns else 0
        self._spans = [
            (tile._a, 0, rows, terms.a),
            (tile._b, shape.rows, columns, terms.b),
        ]
        self._rounds = [-(-count // shape.threads) for _, _, count, _ in self._spans]
        self._own = registers(max(1, sum(self._rounds)), "int32")
        for i in range(sum(self._rounds)):
            put(self._own, T.int32(0), i)

    def _each(self, body: Callable[[int, Panel, Expr, int, Form], None]) -> None:
        place, at = self._tile.place, 0
        for (panel, offset, count, form), rounds in zip(self._spans, self._rounds, strict=True):
            for i in range(rounds):
                unit = place.thread + i * place.threads
                if (i + 1) * place.threads <= count:
                    body(at, panel, unit, offset, form)
                else:
                    with T.If(unit < count), T.Then():
                        body(at, panel, unit, offset, form)
                at += 1

    def take(self, stage: Expr, words: int) -> None:
        """Count the words of a stage."""

        def count(at: int, panel: Panel, unit: Expr, _offset: int, form: Form) -> None:
            total = self._own[at]
            for word in range(words):
                for negative in range(1 + form.signed):
                    bits = panel.word(stage, T.int32(word), unit, Bits.of(form, bool(negative)))
                    met = T.cast(T.popcount(bits), "int32")
                    total = total - met if negative else total + met
            put(self._own, total, at)

        self._each(count)

    def publish(self) -> None:
        """Write them where all threads can read them."""

        def write(at: int, _panel: Panel, unit: Expr, offset: int, _form: Form) -> None:
            put(self._tile._sums, self._own[at], unit + offset)

        self._each(write)
