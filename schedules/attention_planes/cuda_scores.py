"""Dot products of packed queries and keys on CUDA, 16 queries and 32 keys of a warp at a time.

Lanes hold what ``mma.m16n8k128`` gives them (``device.cuh``): queries ``l / 4`` and 8 more, keys
``2 (l % 4)`` and the next of every 8. Words come from the cache: keys of a head are a few kB.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import padded_tokens, words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules.attention_planes.scores import as_signs, flags
from gsb_tvm.schedules.cuda.grid import Place, address, do, each, registers, shared, synchronize
from gsb_tvm.schedules.cuda.terms import Form, Terms, terms
from gsb_tvm.schedules.cuda.tile import Bits, Method
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put

STEP = 4  # words of a product of tensor cores
KEYS = 8  # of a product; four make a word
PER_WORD = 16  # products of a lane for each word of keys: four times two queries and two keys
_SHARED_KEYS = 8 << 10  # whose set bits are counted once for all queries of a block


@dataclass(frozen=True)
class Head:
    """A head of an image, and the 16 queries of a warp: the first of them."""

    batch: Expr
    head: Expr
    first: Expr


class Scores:
    """Products of a warp's queries with a word of keys."""

    def __init__(
        self, spec: AttentionPlanes, t: dict[str, Buffer], place: Place, at: Head, method: Method
    ) -> None:
        self._spec, self._t, self._place, self._at, self._method = spec, t, place, at, method
        self._padded = padded_tokens(spec.q.tokens)
        self._words = words(spec.q.width)
        self._member, self._group = bind(place.lane % 4), bind(place.lane // 4)
        self._sums: Buffer | None = None
        if spec.q.tokens <= _SHARED_KEYS:
            self._sums = shared((spec.q.tokens,), "int32")

    def query(self, half: int) -> Expr:
        """Query of this lane, the first or the second."""
        return self._at.first + self._group + 8 * half

    def key(self, word: Expr, i: int) -> Expr:
        """Key of the i-th of this lane's PER_WORD products with a word of keys."""
        return word * 32 + (i // 4 * KEYS + i % 2) + self._member * 2

    def count_keys(self) -> None:
        """Count the set bits of keys once for the block; all of its threads must come here."""
        if self._sums is None:
            return
        sums = self._sums

        def count(key: Expr) -> None:
            self._by_zeros(lambda form: put(sums, self._set_bits("k", key, form.b), key))

        each(self._place, self._spec.q.tokens, count)
        synchronize()

    def dot(self, word: Expr, counts: Buffer, first: int) -> None:
        """Products with a word of keys into ``counts[first: first + PER_WORD]``, exactly."""
        self._by_zeros(lambda form: self._dot(form, word, counts, first))

    def _by_zeros(self, emit: Callable[[Terms], None]) -> None:
        """``emit`` for the terms of the kinds; where there are no zeros, masked signs are signs."""
        spec = self._spec
        kinds = (spec.query_kind, spec.key_kind)
        full = terms(*kinds, spec.q.width)
        zeros = flags(spec, self._t)
        if zeros is None:
            emit(full)
            return
        with T.If(zeros == 0):
            with T.Then():
                emit(terms(as_signs(kinds[0]), as_signs(kinds[1]), spec.q.width))
            with T.Else():
                emit(full)

    def _dot(self, form: Terms, word: Expr, counts: Buffer, first: int) -> None:
        for i in range(PER_WORD):
            put(counts, T.int32(0), first + i)
        count = self._count if self._method is Method.POPCOUNT else self._multiply
        for pairs, is_negative in ((form.negative, True), (form.positive, False)):
            for of_q, of_k in pairs:
                count(word, counts, first, Bits.of(form.a, of_q), Bits.of(form.b, of_k))
            if is_negative and pairs:
                for i in range(PER_WORD):
                    put(counts, -counts[first + i], first + i)
        of_rows = [
            self._set_bits("q", self.query(half), form.a) * form.of_rows if form.of_rows else 0
            for half in range(2)
        ]
        for i in range(PER_WORD):
            total = counts[first + i] * form.factor + form.constant + of_rows[i // 2 % 2]
            if form.of_columns:
                total = total + self._of_key(self.key(word, i), form.b) * form.of_columns
            put(counts, total, first + i)

    def _of_key(self, key: Expr, form: Form) -> Expr:
        if self._sums is None:
            return self._set_bits("k", key, form)
        return self._sums[T.min(key, self._spec.q.tokens - 1)]

    def _set_bits(self, name: str, token: Expr, form: Form) -> Expr:
        total: Expr = T.int32(0)
        for word in range(self._words):
            for negative in range(1 + form.signed):
                bits = self._load(name, T.int32(word), token, Bits.of(form, bool(negative)))
                met = T.cast(T.popcount(bits), "int32")
                total = total - met if negative else total + met
        return bind(total)

    def _load(self, name: str, word: Expr, token: Expr, bits: Bits) -> Expr:
        index = (
            self._at.batch,
            self._at.head * self._words + word,
            T.min(token, self._padded - 1),
        )
        return bits.taken(lambda plane: self._t[f"{name}_{plane}"][index])

    def _multiply(self, word: Expr, counts: Buffer, first: int, of_q: Bits, of_k: Bits) -> None:
        for step in range(0, self._words, STEP):
            a, b = registers(2, "uint32"), registers(1, "uint32")
            for half in range(2):
                put(a, self._fragment("q", step, self.query(half), of_q), half)
            for n in range(4):
                key = word * 32 + n * KEYS + self._group
                put(b, self._fragment("k", step, key, of_k), 0)
                d = address(counts, first + n * 4)
                for name, of_a, of_b in self._method.products(STEP):
                    do(name, d, address(a, of_a), address(b, of_b))

    def _fragment(self, name: str, step: int, token: Expr, bits: Bits) -> Expr:
        """Word of this lane of a step; 0 behind the last."""
        left = self._words - step
        if left >= STEP:
            return self._load(name, step + self._member, token, bits)
        within = T.min(step + self._member, self._words - 1)
        loaded = self._load(name, within, token, bits)
        return T.Select(self._member < left, loaded, T.uint32(0))

    def _count(self, word: Expr, counts: Buffer, first: int, of_q: Bits, of_k: Bits) -> None:
        for step in range(self._words):
            q = [bind(self._load("q", T.int32(step), self.query(h), of_q)) for h in range(2)]
            for i in range(PER_WORD):
                k = self._load("k", T.int32(step), self.key(word, i), of_k)
                met = T.cast(T.popcount(q[i // 2 % 2] & k), "int32")
                put(counts, counts[first + i] + met, first + i)
