"""The two passes: extremes of ``u = x + shift``, then signs and masks; parts share the tokens."""

from collections.abc import Callable

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import Kind, ValuePlanes
from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.packing import word_of
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.slots import Flag, Slots
from gsb_tvm.schedules.value_planes import tiles, top
from gsb_tvm.schedules.value_planes.bounds import Bounds, bounds_of
from gsb_tvm.schedules.value_planes.space import By, Parameters
from gsb_tvm.targets import Profile

Buffers = dict[str, v.Buffer]
Load = Callable[[v.Expr, int], v.Expr]  # (feature, lanes) -> u of one token


class Planes:
    """Both passes of one kernel."""

    def __init__(
        self, spec: ValuePlanes, profile: Profile, parameters: Parameters, t: Buffers
    ) -> None:
        self._spec, self._profile, self._parameters, self._t = spec, profile, parameters, t

    def emit(self) -> None:
        """Emit both passes, a phase each, and the flag's."""
        spec = self._spec
        highest, lowest = Slots("float32"), Slots("float32")
        zeros = Flag(self._t["out_zeros"]) if spec.kind is Kind.MASKED else None
        with phase() as share:
            high, low = self._extremes(share)
            highest.put(share, high)
            lowest.put(share, low)
        with phase() as share:
            high, low = highest.combined(share, v.maximum), lowest.combined(share, v.minimum)
            bounds = bounds_of(spec, high, low)
            missing = v.local((1,), "uint32")
            v.put(missing, tirx.const(0, "uint32"), 0)
            self._write(bounds, share, missing)
            if zeros is not None:
                zeros.put(share, missing[0])
        if zeros is not None:
            zeros.write()

    def _row(self, b: v.Expr, token: v.Expr) -> Load:
        """Values of one token; at least :func:`tiles.row_length` of them can be loaded."""
        spec, t = self._spec, self._t
        features, length = spec.rows.features, tiles.row_length(spec.rows)

        def load(feature: v.Expr, lanes: int) -> v.Expr:
            x = v.load(t["x"], b, token, feature, lanes=lanes)
            return x + v.load(t["shift"], feature, lanes=lanes) if spec.shift else x

        if features == length:
            return load
        row = v.local((length,), "float32")
        with T.serial(length) as i:
            feature = v.bind(tirx.min(i, features - 1))  # repeats change no extreme
            x = t["x"][b, token, feature]
            v.put(row, x + t["shift"][feature] if spec.shift else x, i)
        return lambda feature, lanes: v.load(row, feature, lanes=lanes)

    def _extremes(self, share: Share) -> tuple[v.Expr, v.Expr]:
        """Maximum and minimum over a part's tokens, in several accumulators to hide latency.

        Of no tokens they are infinities, which change no extreme of all parts.
        """
        rows, length = self._spec.rows, tiles.row_length(self._spec.rows)
        count, lanes = self._parameters.accumulators, self._parameters.lanes
        # A maximum of TVM's is a comparison and a selection on Arm. No accumulator is NaN.
        maximum, minimum = v.maximum, v.minimum
        if self._profile.has_neon:
            maximum, minimum = neon.larger, neon.smaller
        high, low = v.local((count, lanes), "float32"), v.local((count, lanes), "float32")
        for i in range(count):
            v.store(high, v.splat(-np.inf, lanes), i, 0, lanes=lanes)
            v.store(low, v.splat(np.inf, lanes), i, 0, lanes=lanes)

        def take(load: Load, start: v.Expr, i: int) -> None:
            u = v.bind(load(start, lanes))
            v.store(high, maximum(u, v.load(high, i, 0, lanes=lanes)), i, 0, lanes=lanes)
            v.store(low, minimum(u, v.load(low, i, 0, lanes=lanes)), i, 0, lanes=lanes)

        first, end = share.span(rows.tokens)
        with T.serial(rows.batch) as b, T.serial(first, end) as token:
            load = self._row(b, token)
            whole = length // (lanes * count)
            with T.serial(whole) as chunk:
                for i in range(count):
                    take(load, (chunk * count + i) * lanes, i)
            for i, start in enumerate(range(whole * count * lanes, length, lanes)):
                take(load, min(start, length - lanes), i)
        return _fold(high, v.maximum), _fold(low, v.minimum)

    def _write(self, bounds: Bounds, share: Share, missing: v.Buffer) -> None:
        """Write a part of every plane; bits of values without a sign gather in ``missing``."""
        if self._parameters.signs is not By.TOP_BITS:
            self._compare(bounds, share, missing)
            return
        nearest = top.nearest(bounds)
        with T.If(nearest > T.float32(0.0)):
            with T.Then():
                top.Signs(self._spec, self._t, bounds, nearest).write(share, missing)
            with T.Else():
                self._compare(bounds, share, missing)

    def _compare(self, bounds: Bounds, share: Share, missing: v.Buffer) -> None:
        """Write a part of every plane, the words of ``rows`` tokens side by side."""
        rows, block = self._spec.rows, self._parameters.rows
        per_group = words(rows.width)
        start, end = share.span(-(-rows.tokens // block))
        with T.serial(rows.batch) as b, T.serial(start, end) as i:
            first = i if block == 1 else v.bind(T.min(i * block, rows.tokens - block))
            tokens = [first + r for r in range(block)]
            loads = [self._row(b, token) for token in tokens]
            with T.serial(rows.groups) as group, T.serial(per_group) as place:
                for token, load in zip(tokens, loads, strict=True):
                    self._compare_word(bounds, missing, load, (b, token), (group, place))

    def _compare_word(
        self,
        bounds: Bounds,
        missing: v.Buffer,
        load: Load,
        row: tuple[v.Expr, v.Expr],
        word: tuple[v.Expr, v.Expr],
    ) -> None:
        rows, masked = self._spec.rows, self._spec.kind is Kind.MASKED
        (b, token), (group, i) = row, word
        feature = v.bind(group * rows.width + i * WORD_BITS)
        start = v.bind(tirx.min(feature, tiles.row_length(rows) - WORD_BITS))
        valid = v.bind(_valid(rows.width, i))
        u = v.bind(load(start, WORD_BITS))
        planes = _planes_of(u, masked, bounds, self._profile)
        bits = [v.bind(_word(plane, rows.width, feature - start, valid)) for plane in planes]
        at = (b, v.bind(group * words(rows.width) + i), token)
        v.put(self._t["out_bits"], bits.pop(0), *at)
        if masked:
            v.put(missing, missing[0] | (bits[0] ^ valid), 0)
            v.put(self._t["out_nonzero"], bits.pop(0), *at)
        for r, found in enumerate(bits):
            v.put(self._t["masks"], found, r, *at)


def _fold(accumulators: v.Buffer, combine: Callable[[v.Expr, v.Expr], v.Expr]) -> v.Expr:
    """All elements combined into one scalar."""
    count, lanes = (int(extent) for extent in accumulators.shape)
    total = v.load(accumulators, 0, 0, lanes=lanes)
    for i in range(1, count):
        total = v.bind(combine(total, v.load(accumulators, i, 0, lanes=lanes)))
    return v.bind(v.reduce(total, lanes, combine))


def _planes_of(u: v.Expr, masked: bool, bounds: Bounds, profile: Profile) -> list[v.Expr]:
    """Sign, nonzero where masked, and masks of 32 values, each as 32 bits."""
    lanes = WORD_BITS

    def beyond(above: v.Expr, below: v.Expr) -> v.Expr:
        over = word_of(u > v.splat(above, lanes), profile)
        return over | word_of(u < v.splat(below, lanes), profile)

    sign = word_of(u > v.splat(0.0, lanes), profile)
    masks = [beyond(*pair) for pair in zip(bounds.above, bounds.below, strict=True)]
    return [sign, *([beyond(0.0, 0.0)] if masked else []), *masks]


def _word(plane: v.Expr, width: int, early: v.Expr, valid: v.Expr) -> v.Expr:
    """Packed word of a plane that was loaded ``early`` elements before its first."""
    if width % WORD_BITS == 0:
        return plane
    return (plane >> T.cast(early, "uint32")) & valid


def _valid(width: int, i: v.Expr) -> v.Expr:
    """Bits of word ``i`` of a group that hold elements."""
    ones = tirx.const(0xFFFFFFFF, "uint32")
    if width % WORD_BITS == 0:
        return ones
    unused = WORD_BITS - tirx.min(width - i * WORD_BITS, WORD_BITS)
    return ones >> T.cast(unused, "uint32")
