"""Products on tensor cores: 16 queries by 8 channels at a time, by lanes as ``mma`` gives them.

With p a row of attention, x the positive values and m the nonzero ones of a plane::

    p . value = #(p & m & x) + #(p & (~m | x)) - #p        2 #(p & x) - #p where no value is 0

so that counts are only ever added; #p is the product with ones. Masks are nearly empty as a rule:
``sparse`` kernels leave out a product where no key of its 16 queries is one of its 8 channels.
Others have no branches, and so do what a single warp has to do in less time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import or_

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.schedules.attention_value.cuda_head import Head
from gsb_tvm.schedules.attention_value.cuda_output import Output
from gsb_tvm.schedules.attention_value.cuda_packed import Packed
from gsb_tvm.schedules.attention_value.cuda_values import WORD_TILES, Values, key_rows
from gsb_tvm.schedules.cuda.grid import Place, address, call, do, loop, registers
from gsb_tvm.schedules.cuda.tile import HALF_WORDS, MMA_COLUMNS, MMA_WORDS, Method
from gsb_tvm.schedules.cuda.warp import combined
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put

HELD = 96  # registers that a thread's words of attention may take
_PAIR = MMA_WORDS // HALF_WORDS

Words = Callable[[Expr], Expr]  # by the number of four words of keys: this lane's


def is_held(p_groups: int, row_tiles: int, rows: int) -> bool:
    """Whether a thread can hold its words of attention: of ``rows`` words of keys."""
    return p_groups * row_tiles * rows // 2 <= HELD


class Fragments:
    """A warp's queries: ``tiles`` times 16, from number ``first`` of such tiles on."""

    def __init__(
        self,
        head: Head,
        values: Values,
        place: Place,
        first: Expr,
        tiles: int,
        sparse: bool,
        method: Method,
    ) -> None:
        spec, rows = head.spec, key_rows(head.spec)
        self._method = method
        self._head, self._values, self._lane = head, values, place.lane
        self._weights = [
            [head.weight(g, r) for r in range(spec.v_groups)] for g in range(spec.p_groups)
        ]
        group, self._member = bind(place.lane // 4), bind(place.lane % 4)
        # Tiles beyond the last are the last once more.
        self._rows = [
            bind(T.min(first + m, head.tiles - 1) * TOKEN_ALIGN + group) for m in range(tiles)
        ]
        self._steps = rows // HALF_WORDS
        self._held: Buffer | None = None
        if is_held(spec.p_groups, tiles, rows):
            self._held = registers(spec.p_groups * tiles * self._steps * 2, "uint32")
        self._sparse = sparse and self._held is not None
        self._dots = registers(4, "int32")
        self._base = registers(4 * tiles, "int32")
        self._sums = registers(4 * tiles, "float32")
        self._set = registers(spec.p_groups * tiles * 4, "int32")
        self._any = registers(spec.p_groups * tiles * self._steps, "uint32")

    def _at(self, g: int, m: int) -> int:
        return g * len(self._rows) + m

    def _pairs(self) -> Iterator[tuple[int, int]]:
        for g in range(self._head.spec.p_groups):
            for m in range(len(self._rows)):
                yield g, m

    def read(self) -> None:
        """Read what can be held of attention."""
        if self._held is None:
            return
        for g, m in self._pairs():
            for step in range(self._steps):
                for half in range(2):
                    at = (self._at(g, m) * self._steps + step) * 2 + half
                    put(self._held, self._word(g, m, step, half), at)

    def _word(self, g: int, m: int, step: Expr, half: int) -> Expr:
        """The word of attention in memory that this lane takes."""
        word = self._member + step * HALF_WORDS
        found = self._head.attention(g, word, self._rows[m] + half * 8)
        if self._head.key_words % HALF_WORDS == 0:
            return found
        return T.if_then_else(word < self._head.key_words, found, T.uint32(0))

    def _attention(self, g: int, m: int, step: Expr, half: int) -> Expr:
        if self._held is None:
            return self._word(g, m, step, half)
        return self._held[(self._at(g, m) * self._steps + step) * 2 + half]

    def _multiply(self, counts: tuple[Buffer, int], g: int, m: int, columns: list[Words]) -> None:
        """Add common bits of 16 queries and 8 channels, over all keys, for each of ``columns``."""

        def some(first: Expr, steps: int) -> None:
            a, b = registers(2 * steps, "uint32"), registers(steps, "uint32")
            for step in range(steps):
                for half in range(2):
                    put(a, self._attention(g, m, first + step, half), step * 2 + half)
            for column in columns:
                for step in range(steps):
                    put(b, column(first + step), step)
                for name, of_a, of_b in self._method.products(steps * HALF_WORDS):
                    do(name, address(*counts), address(a, of_a), address(b, of_b))

        full, rest = divmod(self._steps, _PAIR)
        if self._held is not None:
            for i in range(full):
                some(i * _PAIR, _PAIR)
        elif full:
            with loop(full) as i:
                some(i * _PAIR, _PAIR)
        if rest:
            some(full * _PAIR, 1)

    def compute(self, masked: bool, words: int, output: Output) -> None:
        """Products of ``words`` words of channels; ``masked``: values may be zero."""
        ones: Words = lambda _step: T.uint32(0xFFFFFFFF)  # noqa: E731
        for g, m in self._pairs():
            at = self._at(g, m)
            for i in range(4):
                put(self._set, T.int32(0), at * 4 + i)
            self._multiply((self._set, at * 4), g, m, [ones])
            if self._sparse:
                self._find(g, m)
        with loop(words) as word:
            packed = Packed(output, len(self._rows))
            for n in range(WORD_TILES):
                column = _Column(self._head, self._values, self._lane, word, n, masked)
                self._correct(column)
                for m in range(len(self._rows)):
                    self._product(column, 0, 0, m, (self._base, m * 4))
                self._finish(column, output, packed)
            if output.packs:
                packed.write(self._rows, word, self._member)

    def _find(self, g: int, m: int) -> None:
        """Keys of any of 16 queries, in every lane of the same words."""
        for step in range(self._steps):
            found = self._attention(g, m, step, 0) | self._attention(g, m, step, 1)
            found = combined(bind(found), "uint32", or_, distance=4)
            put(self._any, found, self._at(g, m) * self._steps + step)

    def _correct(self, column: "_Column") -> None:
        """Sum up the weighted products of all pairs of planes but the first."""
        tiles, spec = range(len(self._rows)), self._head.spec
        for i in range(4 * len(tiles)):
            put(self._sums, T.float32(0), i)
        for r in reversed(range(spec.v_groups)):
            for g in range(0 if r else 1, spec.p_groups):
                for m in tiles:
                    with self._if_any(column, g, r, m):
                        self._product(column, g, r, m, (self._dots, 0))
                        for i in range(4):
                            term = T.cast(self._dots[i], "float32") * self._weights[g][r]
                            put(self._sums, self._sums[m * 4 + i] + term, m * 4 + i)

    @contextmanager
    def _if_any(self, column: "_Column", g: int, r: int, m: int) -> Iterator[None]:
        """Only where a key of the queries is one of the channels."""
        if not self._sparse:
            yield
            return
        own: Expr = T.uint32(0)
        for step in range(self._steps):
            keys = self._any[self._at(g, m) * self._steps + step]
            own = own | (keys & column.keys(r, step) if r else keys)
        with T.If(call("gsb_ballot", own != T.uint32(0), dtype="uint32") != T.uint32(0)), T.Then():
            yield

    def _product(self, column: "_Column", g: int, r: int, m: int, dots: tuple[Buffer, int]) -> None:
        """The exact product of planes g and r, into four numbers of this lane."""
        buffer, at = dots
        # All columns of the product with ones are the same: one number for each half.
        rows = [self._set[self._at(g, m) * 4 + i // 2 * 2] for i in range(4)]
        simple = r == 0 and not column.masked
        for i in range(4):
            put(buffer, T.int32(0) if simple else -rows[i], at + i)
        if not simple:
            self._multiply(dots, g, m, [column.positive(r), column.not_negative(r)])
            return
        self._multiply(dots, g, m, [column.bits])
        for i in range(4):
            put(buffer, buffer[at + i] * 2 - rows[i], at + i)

    def _finish(self, column: "_Column", output: Output, packed: "Packed") -> None:
        channel = bind(column.first + self._member * 2)
        shifts = [output.shift(channel + j) for j in range(2)]
        corrected = self._head.spec.p_groups > 1 or self._head.spec.v_groups > 1
        for m, row in enumerate(self._rows):
            for half in range(2):
                values = []
                for j, shift in enumerate(shifts):
                    at = m * 4 + half * 2 + j
                    value = T.cast(self._base[at], "float32") * self._weights[0][0]
                    if corrected:
                        value = value + self._sums[at]
                    values.append(bind(value if shift is None else value + shift))
                if output.packs:
                    packed.add(m, half, column.tile, values)
                else:
                    output.write_floats(bind(row + half * 8), channel, values)


class _Column:
    """Turned values of 8 channels: this lane's words."""

    def __init__(
        self, head: Head, values: Values, lane: Expr, word: Expr, tile: int, masked: bool
    ) -> None:
        self._head, self._values, self._member = head, values, lane % 4
        self.masked, self.tile = masked, tile
        self.first = bind(word * WORD_BITS + tile * MMA_COLUMNS)
        self._channel = bind(self.first + lane // 4)
        self._tile = word * WORD_TILES + tile

    def _word(self, step: Expr) -> Expr:
        return self._member + step * HALF_WORDS

    def bits(self, step: Expr) -> Expr:
        """Positive values."""
        return self._values.positive(self._head, self._word(step), self._channel)

    def mask(self, r: int, step: Expr) -> Expr:
        """Values of plane r that are not zero."""
        return self._values.mask(self._head, r, self._word(step), self._channel)

    def keys(self, r: int, step: Expr) -> Expr:
        """Keys at which any of the channels is not zero in plane r >= 1."""
        return self._values.keys(self._head, r, self._word(step), self._tile)

    def positive(self, r: int) -> Words:
        """Positive values of plane r."""
        return lambda step: self.bits(step) & self.mask(r, step)

    def not_negative(self, r: int) -> Words:
        """All but the negative ones."""
        return lambda step: self.bits(step) | ~self.mask(r, step)
