"""Products word by word: some queries at a time, a lane for each of 32 channels.

With p a row of attention, x the positive values and m the nonzero ones of a plane::

    p . value = #(p & m & x) - #(p & m & ~x)        2 #(p & x) - #p where no value is 0

Masks are nearly empty as a rule. Attention is the same in all lanes: where ``sparse``, they leave
out words without a bit, and those of a value mask where no key is one of the channels'.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS
from gsb_tvm.schedules.attention_value.cuda_head import Head
from gsb_tvm.schedules.attention_value.cuda_output import Output
from gsb_tvm.schedules.attention_value.cuda_values import WORD_TILES, Values
from gsb_tvm.schedules.cuda.grid import WARP, Place, call, loop, registers
from gsb_tvm.schedules.cuda.warp import combined
from gsb_tvm.schedules.vector import Expr, add, bind, put, store

_VECTOR = 4  # words that one load takes


class Lanes:
    """A warp's queries: ``tiles`` times 16, from number ``first`` of such tiles on."""

    def __init__(
        self, head: Head, values: Values, place: Place, first: Expr, tiles: int, sparse: bool
    ) -> None:
        spec = head.spec
        self._rows = 8 if spec.v_groups < 3 else 4  # at a time: what registers hold
        self._head, self._values, self._lane = head, values, place.lane
        self._first, self._tiles, self._sparse = first, tiles, sparse
        self._attention = registers(self._rows, "uint32")
        self._dots = registers(spec.v_groups * self._rows, "int32")
        self._sums = registers(self._rows, "float32")
        self._base = registers(self._rows, "int32")
        self._set = registers(spec.p_groups, "int32")

    def read(self) -> None:
        """Nothing is read before values are there."""

    def compute(self, masked: bool, words: int, output: Output) -> None:
        """Products of ``words`` words of channels; ``masked``: values may be zero."""
        per_tile = TOKEN_ALIGN // self._rows
        with loop(self._tiles * per_tile) as i:
            # Tiles beyond the last are the last once more.
            tile = bind(T.min(self._first + i // per_tile, self._head.tiles - 1))
            query = bind(tile * TOKEN_ALIGN + i % per_tile * self._rows)
            for g in range(self._head.spec.p_groups):
                put(self._set, self._set_bits(g, query), g)
            with loop(words) as word:
                for row in range(self._rows):
                    put(self._sums, T.float32(0), row)
                for g in reversed(range(self._head.spec.p_groups)):
                    self._count(g, query, word, masked)
                    self._correct(g, masked)
                self._finish(query, word, output)

    def _set_bits(self, g: int, query: Expr) -> Expr:
        """Set bits of a row of attention, of neighbouring lanes each another's."""
        head, lanes = self._head, WARP // self._rows
        own: Expr = T.int32(0)
        for step in range(-(-head.key_words // lanes)):
            word = bind(self._lane // self._rows + step * lanes)
            found = head.attention(g, word, query + self._lane % self._rows)
            if (step + 1) * lanes > head.key_words:
                found = T.if_then_else(word < head.key_words, found, T.uint32(0))
            own = bind(own + T.cast(T.popcount(found), "int32"))
        return combined(own, "int32", add, distance=self._rows)

    def _count(self, g: int, query: Expr, word: Expr, masked: bool) -> None:
        """Products of attention plane g with all value planes; of the first, if simple, counts."""
        spec = self._head.spec
        channel = bind(word * WORD_BITS + self._lane)
        for i in range(spec.v_groups * self._rows):
            put(self._dots, T.int32(0), i)
        with T.serial(self._head.key_words) as key:
            for i in range(0, self._rows, _VECTOR):
                read = self._head.attention(g, key, query + i, lanes=_VECTOR)
                store(self._attention, read, i, lanes=_VECTOR)
            some = self._attention[0]
            for i in range(1, self._rows):
                some = some | self._attention[i]
            some = bind(some)
            with _only(some if g and self._sparse else None):
                bits = bind(self._values.positive(self._head, key, channel))
                for r in range(spec.v_groups):
                    keys = some & self._keys(r, key, word) if r and self._sparse else None
                    with _only(keys):
                        self._add(r, key, channel, bits, masked)

    def _keys(self, r: int, key: Expr, word: Expr) -> Expr:
        found: Expr = T.uint32(0)
        for n in range(WORD_TILES):
            found = found | self._values.keys(self._head, r, key, word * WORD_TILES + n)
        return found

    def _add(self, r: int, key: Expr, channel: Expr, bits: Expr, masked: bool) -> None:
        if r or masked:
            mask = bind(self._values.mask(self._head, r, key, channel))
            positive, negative = bind(bits & mask), bind(~bits & mask)
        for row in range(self._rows):
            own, at = self._attention[row], r * self._rows + row
            if r or masked:
                met = _popcount(own & positive) - _popcount(own & negative)
            else:
                met = _popcount(own & bits)
            put(self._dots, self._dots[at] + met, at)

    def _correct(self, g: int, masked: bool) -> None:
        """Add weighted products to sums; that of the first planes stays by itself."""
        weights = [self._head.weight(g, r) for r in range(self._head.spec.v_groups)]
        for row in range(self._rows):
            if not masked:
                rest = call("gsb_from_lane", self._set[g], T.int32(row), dtype="int32")
                put(self._dots, self._dots[row] * 2 - rest, row)
            for r, weight in enumerate(weights):
                dot = self._dots[r * self._rows + row]
                if r or g:
                    term = T.cast(dot, "float32") * weight
                    put(self._sums, self._sums[row] + term, row)
                else:
                    put(self._base, dot, row)

    def _finish(self, query: Expr, word: Expr, output: Output) -> None:
        spec = self._head.spec
        channel = bind(word * WORD_BITS + self._lane)
        shift, weight = output.shift(channel), self._head.weight(0, 0)
        packed: list[Expr] = [T.uint32(0), T.uint32(0)]
        for row in range(self._rows):
            value = T.cast(self._base[row], "float32") * weight
            if spec.p_groups > 1 or spec.v_groups > 1:
                value = value + self._sums[row]
            value = bind(value if shift is None else value + shift)
            if not output.packs:
                output.write_floats(bind(query + row), channel, [value])
                continue
            tests = [output.bit(value), value < T.float32(0)][: 1 + output.masked]
            for i, test in enumerate(tests):
                found = call("gsb_ballot", test, dtype="uint32")
                packed[i] = bind(T.Select(self._lane == row, bind(found), packed[i]))
        if output.packs:
            below = packed[1] if output.masked else None
            mine = self._lane < self._rows
            output.write_word(bind(query + self._lane), word, packed[0], below, mine)


def _popcount(word: Expr) -> Expr:
    return T.cast(T.popcount(word), "int32")


@contextmanager
def _only(some: Expr | None) -> Iterator[None]:
    """Only where a word has a bit; everywhere without one."""
    if some is None:
        yield
        return
    with T.If(some != T.uint32(0)), T.Then():
        yield
