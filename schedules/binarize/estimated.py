"""Rows of whole words on Neon: four at a time, their statistics as one vector, then estimates.

A block writes every word by :mod:`estimates <gsb_tvm.schedules.binarize.estimates>`, and those in
doubt once more by the steps of the graph. Parts share the blocks of every batch element; the last
block starts early, as in :mod:`wide <gsb_tvm.schedules.binarize.wide>`.
"""

from collections.abc import Callable
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import Binarize, Kind
from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.binarize.estimates import ALL, ROWS, Estimates
from gsb_tvm.schedules.binarize.formula import Emitter, named, shared
from gsb_tvm.schedules.binarize.space import Parameters
from gsb_tvm.schedules.binarize.wide import Wide
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.top_bits import QUAD
from gsb_tvm.schedules.vector import Buffer, Expr
from gsb_tvm.targets.profile import Profile

STEP = WORD_BITS // QUAD  # vectors of a row that are added before the next test

Load = Callable[[int, Expr], Expr]  # (row, feature) -> four neighbours


def kernel(spec: Binarize, profile: Profile, parameters: Parameters) -> Any:
    """PrimFunc of a spec for which :func:`gsb_tvm.schedules.binarize.space.by_estimates`."""

    def body(*tensors: Buffer) -> None:
        buffers = named(spec, tensors)
        shared(
            spec.compare,
            buffers,
            lambda emitter, share: _Blocks(spec, profile, parameters, buffers, emitter).emit(share),
        )

    return v.prim_func([*spec.inputs(), *spec.outputs()], body)


class _Blocks:
    def __init__(
        self,
        spec: Binarize,
        profile: Profile,
        parameters: Parameters,
        buffers: dict[str, Buffer],
        emitter: Emitter,
    ) -> None:
        assert parameters.chains is not None
        self._spec, self._buffers = spec, buffers
        self._words = words(spec.rows.features)
        self._estimates = Estimates(spec, buffers)
        self._chains = parameters.chains
        self._exact = Wide(spec, profile, Parameters(ROWS, words=1, sum_words=1), buffers, emitter)
        self._mean, self._deviation = (v.local((ROWS,), "float32") for _ in range(2))
        self._doubts = v.workspace((self._words, ROWS), "uint32")

    def emit(self, share: Share) -> None:
        """Every batch element's blocks of the part."""
        rows = self._spec.rows
        self._estimates.prepare()
        start, end = share.span(-(-rows.tokens // ROWS))
        with T.serial(0, rows.batch) as b, T.serial(start, end) as i:
            self._block(b, v.bind(T.min(i * ROWS, rows.tokens - ROWS)))

    def _block(self, b: Expr, first: Expr) -> None:
        # Hidden distances, because LLVM loads two vectors at once only near a pointer of their own.
        rows = [
            v.bind(T.cast(v.hidden(T.cast(first + row, "uint32")), "int32")) for row in range(ROWS)
        ]

        def value(row: int, at: Expr) -> Expr:
            return v.load(self._buffers["x"], b, rows[row], at, lanes=QUAD)

        mean, deviation = self._statistics(value)
        reciprocal = v.bind(v.splat(1.0, ROWS) / deviation)
        all_of = v.local((ROWS,), "uint32")
        v.store(all_of, v.splat(ALL, ROWS, "uint32"), 0, lanes=ROWS)
        with T.If(self._estimates.hold(mean, deviation, reciprocal)):
            with T.Then():
                self._estimate(b, first, value, self._estimates.scaled(mean, reciprocal), all_of)
            with T.Else():
                none = v.splat(0, ROWS, "uint32")
                v.store(all_of, none, 0, lanes=ROWS)
                with T.serial(0, self._words) as word:
                    v.store(self._doubts, none, word, 0, lanes=ROWS)
        with T.If(neon.smallest(v.load(all_of, 0, lanes=ROWS)) != T.uint32(ALL)), T.Then():
            self._settle(b, first, mean, deviation)

    def _row_sums(self, values: Callable[[int, Expr], Expr]) -> Expr:
        """Four rows' sums of ``values(row, feature)``, vectors of four features, over n."""
        sums = [v.local((self._chains, QUAD), "float32") for _ in range(ROWS)]
        cells = [(row, chain) for row in range(ROWS) for chain in range(self._chains)]
        for row, chain in cells:
            v.store(sums[row], v.splat(0.0, QUAD), chain, 0, lanes=QUAD)
        with T.serial(0, self._words) as word:
            for row in range(ROWS):
                for i in range(STEP):
                    value = values(row, word * WORD_BITS + i * QUAD)
                    total = v.load(sums[row], i % self._chains, 0, lanes=QUAD) + value
                    v.store(sums[row], total, i % self._chains, 0, lanes=QUAD)
        totals = []
        for row in range(ROWS):
            parts = [v.load(sums[row], chain, 0, lanes=QUAD) for chain in range(self._chains)]
            while len(parts) > 1:
                parts = [low + high for low, high in zip(parts[::2], parts[1::2], strict=True)]
            totals.append(v.bind(parts[0]))
        low, high = (v.bind(neon.add_float_pairs(*totals[i : i + 2])) for i in (0, 2))
        return neon.add_float_pairs(low, high) / v.splat(float(self._spec.rows.features), ROWS)

    def _statistics(self, value: Load) -> tuple[Expr, Expr]:
        """Means and deviations of four rows."""
        mean = v.bind(self._row_sums(value))
        means = [v.bind(v.splat(T.Shuffle([mean], [row]), QUAD)) for row in range(ROWS)]

        def square(row: int, at: Expr) -> Expr:
            centred = v.bind(value(row, at) - means[row])
            return centred * centred

        return mean, v.bind(T.sqrt(self._row_sums(square) + v.splat(self._spec.eps, ROWS)))

    def _estimate(
        self, b: Expr, first: Expr, value: Load, scaled: tuple[Expr, Expr], all_of: Buffer
    ) -> None:
        """All words of four rows, and which are in doubt."""
        slopes, means = scaled
        middles = [v.bind(v.splat(T.Shuffle([means], [row]), QUAD)) for row in range(ROWS)]

        with T.serial(0, self._words) as word:
            bits, certain = self._estimates.word(word, slopes, middles, value)
            v.store(self._buffers["out_bits"], bits, b, word, first, lanes=ROWS)
            if self._spec.compare.kind is Kind.MASKED:
                every = v.splat(ALL, ROWS, "uint32")
                v.store(self._buffers["out_nonzero"], every, b, word, first, lanes=ROWS)
            v.store(self._doubts, certain, word, 0, lanes=ROWS)
            v.store(all_of, v.load(all_of, 0, lanes=ROWS) & certain, 0, lanes=ROWS)

    def _settle(self, b: Expr, first: Expr, mean: Expr, deviation: Expr) -> None:
        """Words in doubt, by the steps of the graph; a division each, since they are few."""
        v.store(self._mean, mean, 0, lanes=ROWS)
        v.store(self._deviation, deviation, 0, lanes=ROWS)

        def divided(x: Expr, row: int) -> Expr:
            mean, deviation = (
                v.splat(stat[row], WORD_BITS) for stat in (self._mean, self._deviation)
            )
            return (x - mean) / deviation

        with T.serial(0, self._words) as word:
            certain = neon.smallest(v.load(self._doubts, word, 0, lanes=ROWS))
            with T.If(certain != T.uint32(ALL)), T.Then():
                start = v.bind(word * WORD_BITS)
                self._exact.pack_word(b, first, start, word, divided, None)
