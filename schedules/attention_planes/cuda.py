"""GSB's nested planes of attention on CUDA: scores, softmax, bias, masks.

A warp takes 16 queries of a head and all keys. The first launch writes the base mask and each row's
largest value; the second, which knows the largest of all, the masks that lie near it: nearly all
rows have no such element, and those that have are computed once more, by the same steps. Up to
``HELD`` words of keys the values of a row stay in registers; longer rows are computed in each pass.
Arithmetic is the bound: some 60 instructions an element, of which the division and the exponential
are half.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import padded_tokens, words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules.attention_planes.cuda_scores import PER_WORD, Head, Scores
from gsb_tvm.schedules.cuda.choosing import filling, method_by_word, methods
from gsb_tvm.schedules.cuda.extremes import Extremes
from gsb_tvm.schedules.cuda.floats import exp, larger
from gsb_tvm.schedules.cuda.grid import (
    WARP,
    Place,
    launch,
    prim_func,
    registers,
    scratch,
)
from gsb_tvm.schedules.cuda.tile import Method
from gsb_tvm.schedules.cuda.warp import ballot, combined, word_of_quad
from gsb_tvm.schedules.vector import Buffer, Expr, add, bind, maximum, put
from gsb_tvm.targets import Profile

ROWS = 16  # queries of a warp
HELD = 8
"""Words of keys up to which a row's values stay in registers, 16 of each lane for each word."""
LOWEST = float.fromhex("-0x1.fffffep+127")


@dataclass(frozen=True)
class Parameters:
    """Of one kernel: warps of a block, how scores are counted, and whether rows are held."""

    warps: int
    method: Method
    held: int


def rule(spec: AttentionPlanes, profile: Profile) -> Parameters:
    """As many warps as leave a block for each multiprocessor."""
    method = method_by_word(profile)
    held = int(words(spec.q.tokens) <= HELD)
    # Rows that are held take half of the registers of a multiprocessor's quarter, and counting by
    # words some more: with eight warps it would spill on sm_100.
    most = 8 if method is Method.TENSOR else 4
    fitting = [Parameters(warps, method, held) for warps in (8, 4, 2, 1) if warps <= most]
    return filling(fitting, lambda p: prod(_blocks(spec, p)), profile) or fitting[-1]


def space(spec: AttentionPlanes, profile: Profile) -> Iterator[Parameters]:
    """More or fewer warps; counted either way; rows held or not."""
    for held in (1, 0) if words(spec.q.tokens) <= HELD else (0,):
        for method in methods(profile):
            for warps in (8, 4, 2, 1):
                yield Parameters(warps, method, held)


def _heads(spec: AttentionPlanes) -> int:
    return spec.q.batch * spec.q.groups


def _blocks(spec: AttentionPlanes, parameters: Parameters) -> tuple[int, int]:
    """Blocks of a launch: along queries, and one for each head."""
    return -(-spec.q.tokens // (ROWS * parameters.warps)), _heads(spec)


def kernel(spec: AttentionPlanes, _profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""

    def body(t: dict[str, Buffer]) -> None:
        writer = _Writer(spec, parameters, t)
        writer.write_base()
        if spec.ratios:
            writer.write_masks()

    return prim_func([*spec.inputs(), *spec.outputs()], body)


class _Writer:
    """A kernel being written."""

    def __init__(self, spec: AttentionPlanes, parameters: Parameters, t: dict[str, Buffer]) -> None:
        self._spec, self._parameters, self._t = spec, parameters, t
        if spec.ratios:
            padded = padded_tokens(spec.q.tokens)
            self._extremes = Extremes(1)
            self._largest = scratch("largest", (_heads(spec), padded), "float32")

    def write_base(self) -> None:
        """The first launch."""
        with launch(_blocks(self._spec, self._parameters), self._threads) as place:
            rows = self._rows(place)
            bound = self._t["scalars"][2]
            strict = self._spec.strict
            largest = rows.write([0], lambda _, p: p > bound if strict else p >= bound)
            if not self._spec.ratios:
                return
            for half in range(2):
                inside = rows.exists(half)
                # Not bound: of few tokens no row's second half is inside, and a name of a constant
                # is replaced by the constant, whose bits CUDA C++ cannot ask for.
                found = registers(1, "float32")
                put(found, T.Select(inside, largest[half], T.float32(LOWEST)), 0)
                self._extremes.take(0, found[0])
                with T.If(T.And(inside, rows.member == 0)), T.Then():
                    put(self._largest, largest[half], place.block[1], rows.query(half))

    def write_masks(self) -> None:
        """The second launch."""
        spec, ratios = self._spec, self._spec.ratios
        blocks = _blocks(spec, self._parameters)
        with launch(blocks, self._threads) as place:
            rows = self._rows(place)
            largest = self._extremes.read(0)
            bounds = [bind(tirx.const(ratio, "float32") * largest) for ratio in ratios]
            any_above: Expr = T.bool(False)
            for half in range(2):
                query = T.min(rows.query(half), spec.q.tokens - 1)
                of_row = bind(self._largest[place.block[1], query])
                for bound in bounds:
                    any_above = T.Or(any_above, T.And(rows.exists(half), of_row > bound))
            with T.If(ballot(any_above) != T.uint32(0)):
                with T.Then():
                    numbers = [1 + r for r in range(len(ratios))]
                    rows.write(numbers, lambda r, p: p > bounds[r])
                with T.Else():
                    rows.clear([1 + r for r in range(len(ratios))])
            self._extremes.forget(place, prod(blocks))

    @property
    def _threads(self) -> int:
        return self._parameters.warps * WARP

    def _rows(self, place: Place) -> "_Rows":
        return _Rows(self._spec, self._parameters, self._t, place)


class _Rows:
    """The queries of a warp, and what is computed of them."""

    def __init__(
        self, spec: AttentionPlanes, parameters: Parameters, t: dict[str, Buffer], place: Place
    ) -> None:
        self._spec, self._t, self._place = spec, t, place
        self._held = bool(parameters.held)
        groups = spec.q.groups
        first = bind((place.block[0] * parameters.warps + place.warp) * ROWS)
        self._at = Head(bind(place.block[1] // groups), bind(place.block[1] % groups), first)
        self._scores = Scores(spec, t, place, self._at, parameters.method)
        self._scores.count_keys()
        self._count = words(spec.q.tokens)
        size = PER_WORD * (self._count if self._held else 1)
        self._dots, self._values = registers(size, "int32"), registers(size, "float32")
        self._left = registers(1, "int32")
        self.member = bind(place.lane % 4)

    def query(self, half: int) -> Expr:
        """Query of this lane, the first or the second."""
        return self._scores.query(half)

    def exists(self, half: int) -> Expr:
        """Whether there is such a query."""
        return self.query(half) < self._spec.q.tokens

    def write(self, masks: list[int], compare: Callable[[int, Expr], Expr]) -> list[Expr]:
        """Write masks of what ``compare(number in masks, p)`` says; the largest p of both rows.

        That is NaN where a p is: then no element is above a share of it.
        """
        highest = self._pass(self._score, LOWEST, maximum)

        def exponential(word: Expr, i: int, at: int, half: int) -> Expr:
            x = self._values[at] if self._held else self._score(word, i, at, half)
            e = exp(x - highest[half])
            e = bind(T.Select(self._real(word, i), e, T.float32(0)))
            put(self._values, e, at)
            return e

        total = self._pass(exponential, 0.0, add)
        largest = registers(2, "float32")
        for half in range(2):
            put(largest, T.float32(LOWEST), half)
        for word, first in self._each_word():
            if not self._held:
                self._scores.dot(word, self._dots, 0)
                for i in range(PER_WORD):
                    half = i // 2 % 2
                    put(self._values, exp(self._scaled(i) - highest[half]), i)
            for i in range(PER_WORD):
                half = i // 2 % 2
                p = bind(self._biased(word, i, self._values[first + i] / total[half]))
                put(self._values, p, first + i)
                kept = larger(largest[half], p)
                put(largest, T.Select(self._real(word, i), kept, largest[half]), half)
            for r, number in enumerate(masks):
                for half in range(2):
                    self._write_word(number, word, first, half, partial(compare, r))
        return [combined(largest[half], "float32", larger, lanes=4) for half in range(2)]

    def clear(self, masks: list[int]) -> None:
        """Write zeros."""
        for number in masks:
            with T.serial(self._count) as word, T.If(self.member < 2), T.Then():
                row = bind(self._at.first + self._place.lane // 4 + 8 * self.member)
                self._store(number, word, row, T.uint32(0))

    def _each_word(self) -> Iterator[tuple[Expr, int]]:
        """Words of keys, and where their values stand."""
        if self._held:
            for word in range(self._count):
                yield T.int32(word), word * PER_WORD
            return
        with T.serial(self._count) as word:
            put(self._left, self._spec.q.tokens - self._scores.key(word, 0), 0)
            yield word, 0

    def _pass(
        self,
        value: Callable[[Expr, int, int, int], Expr],
        start: float,
        combine: Callable[[Expr, Expr], Expr],
    ) -> list[Expr]:
        """``value(word, i, at, half)`` of every element combined, for both rows."""
        found = registers(2, "float32")
        for half in range(2):
            put(found, T.float32(start), half)
        is_first = value == self._score
        for word, first in self._each_word():
            if is_first or not self._held:
                self._scores.dot(word, self._dots, first)
            for i in range(PER_WORD):
                half = i // 2 % 2
                element = value(word, i, first + i, half)
                put(found, combine(found[half], element), half)
        return [combined(found[half], "float32", combine, lanes=4) for half in range(2)]

    def _score(self, word: Expr, i: int, at: int, _half: int) -> Expr:
        """The score, kept in its place; the lowest number where there is no such key."""
        x = T.Select(self._real(word, i), self._scaled(at), T.float32(LOWEST))
        x = bind(x)
        put(self._values, x, at)
        return x

    def _scaled(self, at: int) -> Expr:
        x = T.cast(self._dots[at], "float32")
        for factor in range(self._spec.factors):
            x = bind(x * self._t["scalars"][factor])
        return x

    def _real(self, word: Expr, i: int) -> Expr:
        if self._held:
            return self._scores.key(word, i) < self._spec.q.tokens
        # From a register, of which TVM knows nothing: of the loop's word it would prove each
        # comparison again in every pass, ten seconds a kernel.
        return self._left[0] > i // 4 * 8 + i % 2

    def _biased(self, word: Expr, i: int, p: Expr) -> Expr:
        if not self._spec.bias:
            return p
        tokens = self._spec.q.tokens
        query = T.min(self.query(i // 2 % 2), tokens - 1)
        row = (self._at.head * tokens + query) * tokens
        # The bias is padded at its end: keys behind the last are read, and not used.
        return p + self._t["bias"][row + self._scores.key(word, i)]

    def _write_word(
        self, number: int, word: Expr, first: int, half: int, compare: Callable[[Expr], Expr]
    ) -> None:
        own: Expr = T.uint32(0)
        for i in range(PER_WORD):
            if i // 2 % 2 == half:
                says = T.And(compare(self._values[first + i]), self._real(word, i))
                bit = T.uint32(1 << (i // 4 * 8 + i % 2))
                own = own | T.Select(says, bit, T.uint32(0))
        bits = word_of_quad(own, self.member)
        with T.If(self.member == 0), T.Then():
            self._store(number, word, bind(self.query(half)), bits)

    def _store(self, number: int, word: Expr, query: Expr, bits: Expr) -> None:
        with T.If(query < self._spec.q.tokens), T.Then():
            at = [number, self._at.batch, self._at.head * self._count + word, query]
            T.buffer_store(self._t["masks"], bits, at)
