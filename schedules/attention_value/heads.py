"""The kernel: for every head, corrections first, then the base product and what follows it.

``o = w[0, 0] * (P_0 . V_0) + C``; C sums the products of all other pairs of planes. Masks of values
and of attention are nearly empty as a rule: their products are lists of adds. Above a number of set
bits (:mod:`limits <gsb_tvm.schedules.attention_value.limits>`), decided per head and separately for
the two, they are dense products of planes; both ways are exact in their integers. Parts share the
heads of all images.

Weights are ``fl(p_scale * v_scale)``; every other step is a rounded float32 product or sum. With n
terms added to C for an element (set bits met, or pairs of planes), the error of o is at most
``(n + 3) * 2**-24 * sum |p_scale * v_scale| * (number of ones met)`` up to second order, and 0
where scales are small integers times one power of two. With one plane on each side
``o = fl(w * dot)``.
"""

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import AttentionValue
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.decided import Decided
from gsb_tvm.schedules.attention_value.head import TOKENS, WORD, Buffer, Expr, Head
from gsb_tvm.schedules.attention_value.limits import Limits, limits
from gsb_tvm.schedules.attention_value.lists import add_attention_entries, add_value_entries
from gsb_tvm.schedules.attention_value.outputs import Outputs
from gsb_tvm.schedules.attention_value.planes import row_counts, set_bits, turn
from gsb_tvm.schedules.attention_value.product import Planes, product
from gsb_tvm.schedules.attention_value.space import By, Parameters
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.transpose import transpose
from gsb_tvm.targets.profile import Profile


def kernel(spec: AttentionValue, profile: Profile, parameters: Parameters) -> tirx.PrimFunc:
    """PrimFunc of ``spec``: its inputs, then its outputs."""
    tensors = spec.inputs() + spec.outputs()

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        zeros = Flag(named["out_zeros"]) if "out_zeros" in named else None
        with phase() as share:
            missing = v.local((1,), "uint32")
            v.put(missing, T.uint32(0), 0)
            start, end = share.span(spec.v.batch * spec.v.groups)
            with T.serial(start, end) as unit:
                batch, head = v.bind(unit // spec.v.groups), v.bind(unit % spec.v.groups)
                _Work(Head(spec, profile, parameters, named, batch, head)).emit(missing)
            if zeros is not None:
                zeros.put(share, missing[0])
        if zeros is not None:
            zeros.write()

    return v.prim_func(tensors, body)


class _Work:
    """Scratch and steps of one head."""

    def __init__(self, head: Head) -> None:
        self.head = head
        spec = head.spec
        turned = (spec.v_groups, head.key_words, head.channel_words * WORD)
        self.positive = v.workspace(turned, "uint32")
        self.nonzero = v.workspace(turned, "uint32") if head.masked or spec.v_groups > 1 else None
        self.counts = v.workspace((head.padded,), "int32")
        self.corrected = spec.v_groups > 1 or spec.p_groups > 1
        channels = head.channel_words * WORD
        self.sums = v.workspace((head.padded, channels), "float32") if self.corrected else None
        self.by_channel = v.workspace((WORD, head.padded), "float32") if spec.v_groups > 1 else None

    def emit(self, missing: Buffer) -> None:
        """Every step in order; bits of zeros that are written gather in ``missing``, uint32[1]."""
        head = self.head
        turn(head, self.positive, T.int32(0), head.value_bits)
        if head.parameters.by is not By.INTEGERS:
            self._by_floats(missing)
            return
        with T.If(self._integers_decide()):
            with T.Then():
                Decided(head, self.positive, self.nonzero, self.counts, self.sums).emit(missing)
            with T.Else():
                self._by_floats(missing)

    def _integers_decide(self) -> Expr:
        head = self.head
        limit = self._limits()
        values, attention = self._set_bits()
        weight = v.bind(head.weight(T.int32(0), T.int32(0)))
        few = T.And(values <= limit.values, attention <= limit.attention)
        positive = T.And(weight > T.float32(0.0), weight < T.float32(np.inf))
        decide = T.And(few, positive)
        return T.And(decide, head.named["v_zeros"][0] == 0) if head.masked else decide

    def _limits(self) -> Limits:
        head, parameters = self.head, self.head.parameters
        # None where there are no such masks, whose limit is 0 whatever the multiple.
        multiples = parameters.values or 0.0, parameters.attention or 0.0
        return limits(head.spec, head.profile, *multiples)

    def _by_floats(self, missing: Buffer) -> None:
        dense = self._corrections() if self.corrected else T.bool(False)
        self._base(dense, missing)

    def _set_bits(self) -> tuple[Expr, Expr]:
        """Set bits of all value masks, and of all attention masks but the base."""
        head, spec = self.head, self.head.spec
        values: Expr = T.int32(0)
        attention: Expr = T.int32(0)
        if spec.v_groups > 1:
            values = set_bits(
                head, 0, spec.v_groups - 1, head.channel_words, head.value_mask_vector
            )
        if spec.p_groups > 1:
            attention = set_bits(
                head,
                1,
                spec.p_groups,
                head.key_words,
                lambda g, word, token: head.attention(g, word, token, lanes=TOKENS),
            )
        return values, attention

    def _corrections(self) -> Expr:
        """Fill ``sums``; returns whether the nonzero values were turned."""
        head, spec = self.head, self.head.spec
        limit = self._limits()
        values, attention = self._set_bits()
        dense_values = v.bind(values > limit.values)
        dense_attention = v.bind(attention > limit.attention)
        self._value_corrections(values, dense_values)
        dense = v.bind(T.Or(dense_values, dense_attention))
        with T.If(dense), T.Then():
            self._dense(dense_values, dense_attention)
        if spec.p_groups > 1:
            with T.If(T.Not(dense_attention)), T.Then():
                add_attention_entries(head, self.sums)
        return dense

    def _value_corrections(self, values: Expr, dense: Expr) -> None:
        if self.by_channel is None:
            _clear(self.sums)
            return
        with T.If(T.And(values > 0, T.Not(dense))):
            with T.Then():
                with T.serial(self.head.channel_words) as word:
                    _clear(self.by_channel)
                    add_value_entries(self.head, word, self.by_channel)
                    transpose(self.by_channel, self.sums, word * WORD, self.head.profile.lanes)
            with T.Else():
                _clear(self.sums)

    def _turn_nonzero(self) -> None:
        turn(self.head, self.nonzero, T.int32(0), self.head.value_nonzero)

    def _dense(self, dense_values: Expr, dense_attention: Expr) -> None:
        """Products of the base attention with value masks, and of the others with everything."""
        head, spec = self.head, self.head.spec
        if head.masked:
            self._turn_nonzero()
        if spec.v_groups > 1:
            with T.serial(1, spec.v_groups) as r:
                turn(
                    head,
                    self.positive,
                    r,
                    lambda x, key, lanes=1: (
                        head.value_mask(r - 1, x, key, lanes) & head.value_bits(x, key, lanes)
                    ),
                )
                turn(
                    head,
                    self.nonzero,
                    r,
                    lambda x, key, lanes=1: head.value_mask(r - 1, x, key, lanes),
                )
        with T.serial(spec.p_groups) as g:
            with T.If(T.Select(g == 0, dense_values, dense_attention)), T.Then():
                self._dense_of(g)

    def _dense_of(self, g: Expr) -> None:
        head, values = self.head, self.head.spec.v_groups
        if head.masked:
            with T.serial(values) as r, T.If(T.Or(g > 0, r > 0)), T.Then():
                self._add_product(g, r, self.nonzero)
            return
        with T.If(g > 0), T.Then():
            row_counts(head, self.counts, g)
            self._add_product(g, T.int32(0), None)
        if values > 1:
            with T.serial(1, values) as r:
                self._add_product(g, r, self.nonzero)

    def _add_product(self, g: Expr, r: Expr, nonzero: Buffer) -> None:
        weight = v.bind(self.head.weight(g, r))

        def add(row: Expr, word: Expr, _last: bool, dots: Expr) -> None:
            term = v.rounded(T.cast(dots, f"float32x{WORD}") * v.splat(weight, WORD))
            before = v.load(self.sums, row, word * WORD, lanes=WORD)
            v.store(self.sums, before + term, row, word * WORD, lanes=WORD)

        product(self.head, Planes(g, r, self.positive, nonzero, self.counts), add)

    def _base(self, dense: Expr, missing: Buffer) -> None:
        """Base product, corrections, shift, comparison, output."""
        head = self.head
        outputs = Outputs(head, self.sums)
        base = T.int32(0)

        def plain() -> None:
            row_counts(head, self.counts, base)
            product(head, Planes(base, base, self.positive, None, self.counts), outputs.consume)

        if not head.masked:
            plain()
        else:
            with T.If(head.named["v_zeros"][0] == 0):
                with T.Then():
                    plain()
                with T.Else():
                    with T.If(T.Not(dense)), T.Then():
                        self._turn_nonzero()
                    planes = Planes(base, base, self.positive, self.nonzero, self.counts)
                    product(head, planes, outputs.consume)
        outputs.finish(missing)


def _clear(buffer: Buffer) -> None:
    rows, columns = (int(size) for size in buffer.shape)
    with T.serial(rows) as row, T.serial(columns // TOKENS) as column:
        v.store(buffer, v.splat(0.0, TOKENS), row, column * TOKENS, lanes=TOKENS)
