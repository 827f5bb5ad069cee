"""From integer dots to the output: weight, corrections, then floats, or shift and packed plane."""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.head import WORD, Buffer, Expr, Head
from gsb_tvm.schedules.packing import word_of

ALL = 0xFFFFFFFF


class Outputs:
    """Writes the rows of one head as they are finished."""

    def __init__(self, head: Head, sums: Buffer) -> None:
        self.head, self.sums = head, sums
        self.weight = v.bind(head.weight(T.int32(0), T.int32(0)))
        self.rest = head.spec.v.width % WORD
        self.whole_rows = head.tokens % head.parameters.rows == 0
        compare = head.spec.compare
        self.shift = self._padded_shift() if head.spec.shift and compare else None
        self.zeros = v.local((1,), "uint32") if compare and compare.kind is Kind.MASKED else None
        if self.zeros is not None:
            v.put(self.zeros, T.uint32(0), 0)

    def _padded_shift(self) -> Buffer:
        """Shift of this head over whole words; what stands in the padding meets no output."""
        width = self.head.spec.v.width
        padded = v.workspace((self.head.channel_words * WORD,), "float32")
        with T.serial(width) as c:
            v.put(padded, self.head.named["shift"][self.head.head * width + c], c)
        return padded

    def consume(self, row: Expr, word: Expr, last: bool, dots: Expr) -> None:
        """Finish 32 channels of a row; rows beyond the last token may come, too."""
        value = v.rounded(T.cast(dots, f"float32x{WORD}") * v.splat(self.weight, WORD))
        if self.sums is not None:
            value = value + v.load(self.sums, row, word * WORD, lanes=WORD)
        if self.shift is not None:
            value = value + v.load(self.shift, word * WORD, lanes=WORD)
        value = v.bind(value)
        channels = self.rest if last and self.rest else WORD
        if self.head.spec.compare is not None:
            self._pack(row, word, channels, value)
        elif self.whole_rows:
            self._store(row, word, channels, value)
        else:
            with T.If(row < self.head.tokens), T.Then():
                self._store(row, word, channels, value)

    def _store(self, row: Expr, word: Expr, channels: int, value: Expr) -> None:
        o, batch = self.head.named["o"], self.head.batch
        start = self.head.head * self.head.spec.v.width + word * WORD
        if channels == WORD:
            v.store(o, value, batch, row, start, lanes=WORD)
            return
        kept = v.local((WORD,), "float32")
        v.store(kept, value, 0, lanes=WORD)
        with T.serial(channels) as c:
            v.put(o, kept[c], batch, row, start + c)

    def _pack(self, row: Expr, word: Expr, channels: int, value: Expr) -> None:
        head, compare = self.head, self.head.spec.compare
        assert compare is not None
        real = T.uint32(ALL if channels == WORD else (1 << channels) - 1)
        at = (head.batch, head.head * head.channel_words + word, row)
        bound = v.splat(compare.bound, WORD)
        above = value > bound if compare.strict else value >= bound
        bits = v.bind(word_of(above, head.profile) & real)
        v.put(head.named["out_bits"], bits, *at)
        if self.zeros is None:
            return
        below = word_of(value < v.splat(0.0, WORD), head.profile) & real
        nonzero = v.bind(bits | below)  # a masked sign is strict at 0: bits are the values above
        v.put(head.named["out_nonzero"], nonzero, *at)
        zeros = nonzero ^ real
        if not self.whole_rows:
            zeros = T.Select(row < head.tokens, zeros, T.uint32(0))
        v.put(self.zeros, self.zeros[0] | zeros, 0)

    def finish(self, missing: Buffer) -> None:
        """Add the zeros of this head to ``missing``, uint32[1]."""
        if self.zeros is not None:
            v.put(missing, missing[0] | self.zeros[0], 0)
