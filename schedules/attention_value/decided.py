"""Heads of nearly empty masks on Neon: integers decide, floats where something is added to them.

Without corrections the outcome of an element is that of its integer product against a threshold of
its channel, and found by a comparison of bytes. What corrections reach is computed once more, as
floats: channels with a bit in a value mask, then rows with a bit in an attention mask. The steps
and their order are those of the lists.
"""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Kind
from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.head import (
    TOKENS,
    WORD,
    Buffer,
    Expr,
    Head,
)
from gsb_tvm.schedules.attention_value.lists import add_attention_entries
from gsb_tvm.schedules.attention_value.met import count_met
from gsb_tvm.schedules.attention_value.outputs import ALL, Outputs
from gsb_tvm.schedules.attention_value.planes import row_counts, turn
from gsb_tvm.schedules.attention_value.thresholds import Thresholds
from gsb_tvm.schedules.counting import reinterpret
from gsb_tvm.schedules.set_bits import for_each_bit

ROWS = 2  # of a tile: their words are neighbours
QUAD = 4  # words of a vector


class Decided:
    """One head with few bits in masks, no zero among its values, and a positive weight."""

    def __init__(
        self, head: Head, positive: Buffer, nonzero: Buffer, counts: Buffer, sums: Buffer
    ) -> None:
        self.head, self.positive, self.nonzero = head, positive, nonzero
        self.counts, self.sums = counts, sums
        channels, spec = head.spec.v.width, head.spec
        self.met = v.workspace((head.padded, channels), "uint8")  # positive values of each row
        self.thresholds = Thresholds(head)
        self.listed = v.workspace((channels + 1,), "int32")  # marked channels
        self.count = v.local((1,), "int32")
        self.corrections = v.workspace((channels, head.padded), "float32")
        self.reached = v.workspace((head.padded,), "uint32")  # ones: rows of masks, and of padding
        assert spec.compare is not None
        self.compare = spec.compare
        self.masked = spec.compare.kind is Kind.MASKED

    def emit(self, missing: Buffer) -> None:
        """Every step; bits of zeros that are written gather in ``missing``, uint32[1]."""
        head, spec = self.head, self.head.spec
        weight = v.bind(head.weight(T.int32(0), T.int32(0)))
        row_counts(head, self.counts, T.int32(0))
        self.thresholds.find(weight)
        if spec.v_groups > 1:
            self._mark_channels()
        self._mark_rows()
        count_met(head, self.positive, self.met)
        self._outcomes_of_integers()
        self._list_channels()
        with T.serial(self.count[0]) as i:
            self._channel(v.bind(self.listed[i]), weight, missing)
        if spec.p_groups > 1:
            self._rows(missing)

    def _mark_channels(self) -> None:
        head, marked = self.head, self.thresholds.marked
        with T.serial(1, head.spec.v_groups) as r:
            turn(
                head,
                self.nonzero,
                r,
                lambda x, key, lanes=1: head.value_mask(r - 1, x, key, lanes),
            )
            with T.serial(head.spec.v.width // QUAD) as quad:
                at = v.bind(quad * QUAD)
                found = v.load(self.nonzero, r, 0, at, lanes=QUAD)
                for word in range(1, head.key_words):
                    found = found | v.load(self.nonzero, r, word, at, lanes=QUAD)
                before = v.load(marked, at, lanes=QUAD)
                v.store(marked, before | reinterpret(found, f"int32x{QUAD}"), at, lanes=QUAD)

    def _list_channels(self) -> None:
        """Marked channels as a list, without a branch that data decide."""
        v.put(self.count, T.int32(0), 0)
        with T.serial(self.head.spec.v.width) as channel:
            end = v.bind(self.count[0])
            v.put(self.listed, channel, end)
            found = T.cast(self.thresholds.marked[channel] != 0, "int32")
            v.put(self.count, end + found, 0)

    def _mark_rows(self) -> None:
        head = self.head
        none, every = (v.splat(bits, TOKENS, "uint32") for bits in (0, ALL))

        with T.serial(head.padded // TOKENS) as block:
            token = v.bind(block * TOKENS)
            found = none
            for g in range(1, head.spec.p_groups):
                for word in range(head.key_words):
                    found = found | head.attention(T.int32(g), T.int32(word), token, lanes=TOKENS)
            found = T.Select(found != none, every, none)
            padding = T.ramp(token, 1, TOKENS) >= v.splat(head.tokens, TOKENS, "int32")
            found = found | T.Select(padding, every, none)
            v.store(self.reached, found, token, lanes=TOKENS)

    def _outcomes_of_integers(self) -> None:
        """Outputs as if there were no corrections, two rows and 32 channels at a time."""
        head, counts = self.head, self.counts
        with T.serial(head.channel_words) as x, T.serial(-(-head.tokens // ROWS)) as i:
            row, first = v.bind(i * ROWS), v.bind(x * WORD)

            def above(m: int) -> Expr:
                met = v.bind(v.load(self.met, row + m, first, lanes=WORD))
                count = v.bind(counts[row + m])
                half = v.splat(T.cast(count >> 1, "uint8"), WORD)
                signed = v.bind(reinterpret(v.bind(met - half), f"int8x{WORD}"))
                return signed > v.load(self.thresholds.least, count & 1, first, lanes=WORD)

            at = (head.batch, head.head * head.channel_words + x, row)
            bits = neon.packed([above(m) for m in range(ROWS)])
            v.store(head.named["out_bits"], bits, *at, lanes=ROWS)
            if self.masked:
                every = v.splat(ALL, ROWS, "uint32")
                v.store(head.named["out_nonzero"], every, *at, lanes=ROWS)

    def _channel(self, channel: Expr, weight: Expr, missing: Buffer) -> None:
        """One channel of all rows, as floats."""
        head, spec = self.head, self.head.spec
        blocks = head.padded // TOKENS
        zero = v.splat(0.0, TOKENS)
        with T.serial(blocks) as block:
            v.store(self.corrections, zero, channel, block * TOKENS, lanes=TOKENS)
        if spec.v_groups > 1:
            with T.serial(1, spec.v_groups) as r, T.serial(head.key_words) as word:
                for_each_bit(
                    self.nonzero[r, word, channel],
                    lambda bit: self._add_entry(channel, r, word, bit),
                )
        settled = v.local((TOKENS,), "uint32")
        v.store(settled, v.splat(ALL, TOKENS, "uint32"), 0, lanes=TOKENS)
        self._outcomes(channel, weight, settled, zeros=False)
        if self.masked:
            kept = v.reduce(v.load(settled, 0, lanes=TOKENS), TOKENS, lambda a, b: a & b)
            with T.If(kept != T.uint32(ALL)), T.Then():
                v.put(missing, T.uint32(1), 0)
                self._outcomes(channel, weight, settled, zeros=True)

    def _outcomes(self, channel: Expr, weight: Expr, settled: Buffer, *, zeros: bool) -> None:
        """Put a channel's outcomes into the words that stand there.

        Signs, and in ``settled`` whether none is 0; or with ``zeros`` which of them are.
        """
        head, spec = self.head, self.head.spec
        shift = T.float32(0.0)
        if spec.shift:
            shift = v.bind(head.named["shift"][head.head * spec.v.width + channel])
        with T.serial(head.padded // TOKENS) as block:
            token = v.bind(block * TOKENS)
            met = v.local((TOKENS,), "int32")
            for i in range(TOKENS):
                v.put(met, T.cast(self.met[token + i, channel], "int32"), i)
            twice = v.load(met, 0, lanes=TOKENS) * v.splat(2, TOKENS, "int32")
            dots = twice - v.load(self.counts, token, lanes=TOKENS)
            value = v.rounded(T.cast(dots, f"float32x{TOKENS}") * v.splat(weight, TOKENS))
            value = value + v.load(self.corrections, channel, token, lanes=TOKENS)
            value = v.bind(value + v.splat(shift, TOKENS))
            bound = v.splat(self.compare.bound, TOKENS)
            above = _mask(value > bound if self.compare.strict else value >= bound)
            nonzero = v.bind(above | _mask(value < v.splat(0.0, TOKENS)))
            if zeros:
                self._put("out_nonzero", channel, token, nonzero)
            else:
                self._put("out_bits", channel, token, above)
                if self.masked:
                    # Not yet the rows of attention masks, and none behind the last.
                    fine = nonzero | v.load(self.reached, token, lanes=TOKENS)
                    before = v.load(settled, 0, lanes=TOKENS)
                    v.store(settled, before & fine, 0, lanes=TOKENS)

    def _put(self, name: str, channel: Expr, token: Expr, holds: Expr) -> None:
        """Bits of one channel in the words of 16 rows."""
        head = self.head
        at = (head.batch, head.head * head.channel_words + channel // WORD, token)
        place = v.splat(T.uint32(1) << T.cast(channel % WORD, "uint32"), TOKENS)
        before = v.bind(v.load(head.named[name], *at, lanes=TOKENS))
        v.store(head.named[name], before ^ ((before ^ holds) & place), *at, lanes=TOKENS)

    def _add_entry(self, channel: Expr, r: Expr, word: Expr, bit: Expr) -> None:
        """A set bit of value mask ``r``, for the rows whose base mask holds its key."""
        head = self.head
        weight = v.bind(head.weight(T.int32(0), r))
        place = v.bind(T.uint32(1) << T.cast(bit, "uint32"))
        positive = (self.positive[0, word, channel] & place) != T.uint32(0)
        value = v.splat(v.bind(T.Select(positive, weight, -weight)), TOKENS)
        with T.serial(head.padded // TOKENS) as block:
            token = v.bind(block * TOKENS)
            rows = head.attention(T.int32(0), word, token, lanes=TOKENS)
            holds = (rows & v.splat(place, TOKENS)) != v.splat(0, TOKENS, "uint32")
            before = v.bind(v.load(self.corrections, channel, token, lanes=TOKENS))
            after = T.Select(holds, before + value, before)
            v.store(self.corrections, after, channel, token, lanes=TOKENS)

    def _rows(self, missing: Buffer) -> None:
        """Rows that attention masks reach, as floats."""
        head = self.head
        outputs = Outputs(head, self.sums)
        with T.serial(head.tokens) as row, T.If(self.reached[row] != T.uint32(0)), T.Then():
            with T.serial(head.channel_words) as x:
                v.store(self.sums, v.splat(0.0, WORD), row, x * WORD, lanes=WORD)
            with T.serial(self.count[0]) as i:
                channel = v.bind(self.listed[i])
                v.put(self.sums, self.corrections[channel, row], row, channel)
        add_attention_entries(head, self.sums)
        with T.serial(head.tokens) as row, T.If(self.reached[row] != T.uint32(0)), T.Then():
            with T.serial(head.channel_words) as x:
                met = T.cast(v.load(self.met, row, x * WORD, lanes=WORD), f"int32x{WORD}")
                twice = met * v.splat(2, WORD, "int32")
                outputs.consume(row, x, False, twice - v.splat(self.counts[row], WORD))
        outputs.finish(missing)


def _mask(condition: Expr) -> Expr:
    every, none = (v.splat(bits, TOKENS, "uint32") for bits in (ALL, 0))
    return v.bind(T.Select(condition, every, none))
