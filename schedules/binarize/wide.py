"""Rows of 32 features or more: one word per 32-lane compare, six rows through the stages at once.

Stages over a block of rows, so that the latencies of its rows overlap:

1. mean: vector sums, one horizontal sum per row;
2. variance: the same over (x - mean)**2; then deviation and its reciprocal;
3. per word: quotient, gamma, beta, shift, compare, pack; gamma, beta, shift loaded once per block.

Parts share the blocks of every batch element. The last block starts at ``tokens - rows``: rows it
has in common with the block before, which may be another part's, are written twice with the same
words. A row's last, partial word is computed from its last 32 features and shifted
into place, so that nothing outside the row is read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, Rows, words
from gsb_tvm.dialect.specs import Binarize
from gsb_tvm.schedules.binarize.formula import (
    DEVIATION_HIGH,
    DEVIATION_LOW,
    Emitter,
    affine,
    named,
    quotient,
    shared,
)
from gsb_tvm.schedules.binarize.space import Parameters, Quotient
from gsb_tvm.schedules.packing import word_of
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.vector import (
    Buffer,
    Expr,
    add,
    bind,
    load,
    local,
    prim_func,
    put,
    reduce,
    splat,
    store,
)
from gsb_tvm.targets.profile import Profile


@dataclass(frozen=True)
class _Stats:
    """Row statistics of one block: float32[rows] each."""

    mean: Buffer
    deviation: Buffer
    negative: Buffer
    reciprocal: Buffer


def kernel(spec: Binarize, profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc for rows of at least 32 features."""

    def body(*tensors: Buffer) -> None:
        buffers = named(spec, tensors)
        shared(
            spec.compare,
            buffers,
            lambda emitter, share: Wide(spec, profile, parameters, buffers, emitter).emit(share),
        )

    return prim_func([*spec.inputs(), *spec.outputs()], body)


class Wide:
    """Blocks of rows of one part."""

    def __init__(
        self,
        spec: Binarize,
        profile: Profile,
        parameters: Parameters,
        buffers: dict[str, Buffer],
        emitter: Emitter,
    ) -> None:
        assert parameters.rows
        assert parameters.words
        assert parameters.sum_words
        rows = spec.rows
        # Whole words follow each other across groups: one long group.
        whole = rows.width % WORD_BITS == 0
        self._rows = Rows(rows.batch, rows.tokens, 1, rows.features) if whole else rows
        self._spec, self._profile = spec, profile
        self._fast_quotient = parameters.quotient is Quotient.FUSED
        self._buffers = buffers
        self._emitter = emitter
        self._block, self._words = parameters.rows, parameters.words
        self._sum_words = parameters.sum_words

    def emit(self, share: Share) -> None:
        """Every batch element's blocks of the part."""
        rows, block = self._rows, self._block
        stats = _Stats(*[local((block,), "float32") for _ in range(4)])
        sums = local((self._sum_words, WORD_BITS), "float32")
        start, end = share.span(-(-rows.tokens // block))
        with T.serial(0, rows.batch) as b:
            with T.serial(start, end) as i:
                first = bind(T.min(i * block, rows.tokens - block))
                if self._spec.norm:
                    with T.serial(0, block) as r:
                        self._mean(stats, sums, b, first + r, r)
                    with T.serial(0, block) as r:
                        self._variance(stats, sums, b, first + r, r)
                    self._deviations(stats)
                    self._pack_normed(stats, b, first)
                else:
                    self._pack_rows(b, first, lambda x, _: x)

    def _row_sum(self, sums: Buffer, load_word: Callable[[Expr], Expr]) -> Expr:
        """Sum over a row of ``load_word(first feature)``, by whole words and then the rest."""
        count, step = self._rows.features, self._sum_words * WORD_BITS
        for word in range(self._sum_words):
            store(sums, splat(0.0, WORD_BITS), word, 0, lanes=WORD_BITS)

        def accumulate(word: int, value: Expr) -> None:
            total = load(sums, word, 0, lanes=WORD_BITS) + value
            store(sums, total, word, 0, lanes=WORD_BITS)

        with T.serial(0, count // step) as n:
            for word in range(self._sum_words):
                accumulate(word, load_word(n * step + word * WORD_BITS))
        done = count // step * step
        for start in range(done, count - WORD_BITS + 1, WORD_BITS):
            accumulate(0, load_word(start))
        rest = count % WORD_BITS
        if rest:
            new = T.ramp(0, 1, WORD_BITS) >= splat(WORD_BITS - rest, WORD_BITS, "int32")
            value = load_word(count - WORD_BITS)
            accumulate(0, T.Select(new, value, splat(0.0, WORD_BITS)))
        total = load(sums, 0, 0, lanes=WORD_BITS)
        for word in range(1, self._sum_words):
            total = total + load(sums, word, 0, lanes=WORD_BITS)
        return bind(reduce(total, WORD_BITS, add))

    def _mean(self, stats: _Stats, sums: Buffer, b: Expr, row: Expr, r: Expr) -> None:
        x = self._buffers["x"]
        total = self._row_sum(sums, lambda n: load(x, b, row, n, lanes=WORD_BITS))
        put(stats.mean, total / tirx.const(float(self._rows.features), "float32"), r)

    def _variance(self, stats: _Stats, sums: Buffer, b: Expr, row: Expr, r: Expr) -> None:
        x = self._buffers["x"]
        mean = bind(splat(stats.mean[r], WORD_BITS))

        def square(n: Expr) -> Expr:
            centred = bind(load(x, b, row, n, lanes=WORD_BITS) - mean)
            return centred * centred

        total = self._row_sum(sums, square)
        put(stats.deviation, total / tirx.const(float(self._rows.features), "float32"), r)

    def _deviations(self, stats: _Stats) -> None:
        for r in range(self._block):
            s = bind(T.sqrt(stats.deviation[r] + tirx.const(self._spec.eps, "float32")))
            put(stats.deviation, s, r)
            if self._fast_quotient:
                put(stats.negative, tirx.const(0.0, "float32") - s, r)
                put(stats.reciprocal, tirx.const(1.0, "float32") / s, r)

    def _pack_normed(self, stats: _Stats, b: Expr, first: Expr) -> None:
        def lanes(values: Buffer, r: int) -> Expr:
            return splat(values[r], WORD_BITS)

        def divide(x: Expr, r: int) -> Expr:
            return (x - lanes(stats.mean, r)) / lanes(stats.deviation, r)

        def multiply(x: Expr, r: int) -> Expr:
            centred = bind(x - lanes(stats.mean, r))
            return quotient(centred, lanes(stats.negative, r), lanes(stats.reciprocal, r))

        if not self._fast_quotient:
            self._pack_rows(b, first, divide)
            return
        normal = tirx.const(True, "bool")
        for r in range(self._block):
            s = stats.deviation[r]
            low, high = (tirx.const(v, "float32") for v in (DEVIATION_LOW, DEVIATION_HIGH))
            normal = T.And(normal, T.And(s >= low, s <= high))
        with T.If(normal):
            with T.Then():
                self._pack_rows(b, first, multiply)
            with T.Else():
                self._pack_rows(b, first, divide)

    def _pack_rows(self, b: Expr, first: Expr, normed: Callable[[Expr, int], Expr]) -> None:
        rows = self._rows
        per_group = words(rows.width)
        with T.serial(0, rows.groups) as g:
            whole, rest = divmod(rows.width // WORD_BITS, self._words)

            def pack(w: Expr, g: Expr = g) -> None:
                start = bind(g * rows.width + w * WORD_BITS)
                self.pack_word(b, first, start, g * per_group + w, normed, None)

            with T.serial(0, whole) as step:
                for i in range(self._words):
                    pack(step * self._words + i)
            for i in range(rest):
                pack(whole * self._words + i)
            if rows.width % WORD_BITS:
                wanted = bind(g * rows.width + rows.width // WORD_BITS * WORD_BITS)
                start = bind(T.min(wanted, rows.features - WORD_BITS))
                self.pack_word(b, first, start, (g + 1) * per_group - 1, normed, wanted - start)

    def pack_word(
        self,
        b: Expr,
        first: Expr,
        start: Expr,
        word: Expr,
        normed: Callable[[Expr, int], Expr],
        skipped: Expr | None,
    ) -> None:
        """One word of every row of the block; ``skipped`` lanes of a partial one come before it."""
        vectors = {
            name: bind(load(self._buffers[name], start, lanes=WORD_BITS))
            for name in ("gamma", "beta", "shift")
            if name in self._buffers
        }
        rest = self._rows.width % WORD_BITS
        full = 2**WORD_BITS - 1 if skipped is None else 2**rest - 1

        def place(bits: Expr) -> Expr:
            if skipped is None:
                return bits
            return (bits >> T.Cast("uint32", skipped)) & tirx.const(full, "uint32")

        for r in range(self._block):
            x = normed(load(self._buffers["x"], b, first + r, start, lanes=WORD_BITS), r)
            u = bind(affine(x, *[vectors.get(name) for name in ("gamma", "beta", "shift")]))
            masks = self._emitter.masks(u, WORD_BITS)
            packed = [place(word_of(mask, self._profile)) for mask in masks]
            self._emitter.store(packed, full, b, word, first + r)
