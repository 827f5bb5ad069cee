"""Sum over all pairs of planes of exact dot products, weighted.

Lanes are tokens of b, neighbours of one word; words of a are broadcast. Integers are exact per
pair. A pair's weight is ``fl(a_scale * b_scale)``; products and the running sum over P pairs are
rounded to float32, so ``|y - exact| <= (P + 1) * 2**-24 * sum |weight * dot|`` up to second order.

Parts share the row tiles of every batch element, and each counts the set bits of all rows for
itself. Rows that two tiles have in common are written twice with the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.batch_matmul.formula import Form, Term, Words, form
from gsb_tvm.schedules.batch_matmul.tiles import LANES, Tile, choose
from gsb_tvm.schedules.counting import count_words, dot_of
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.targets.profile import Profile

Buffer = v.Buffer
Expr = v.Expr


@dataclass(frozen=True)
class Plane:
    """Buffers of one plane; None where there is no nonzero plane, or no form asks for counts."""

    kind: Kind
    bits: Buffer
    nonzero: Buffer
    counts: Buffer

    @property
    def counted(self) -> Buffer:
        """Plane whose set bits ``counts`` holds."""
        return self.bits if self.nonzero is None else self.nonzero

    def words(self, *index: Expr, lanes: int) -> Words:
        """Neighbouring words, or with one lane a word to broadcast."""

        def take(buffer: Buffer) -> Expr:
            if lanes > 1:
                return v.bind(v.load(buffer, *index, lanes=lanes))
            return v.bind(v.splat(buffer[tuple(index)], LANES))

        return take(self.bits), None if self.nonzero is None else take(self.nonzero)


def kernel(spec: BatchMatmul, profile: Profile) -> tirx.PrimFunc:
    """PrimFunc of ``spec``: its inputs, then its output."""
    names = [name for name, _, _ in spec.inputs() + spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = dict(zip(names, buffers, strict=True))
        with phase() as share:
            _part(spec, profile, named, share)

    return v.prim_func(spec.inputs() + spec.outputs(), body)


def _part(spec: BatchMatmul, profile: Profile, named: dict[str, Buffer], share: Share) -> None:
    """One part: exact with zeros where a flag says that there are any."""
    flags = [named[name] for name, _, _ in spec.inputs() if name.endswith("_zeros")]
    if not flags:
        _Product(spec, profile, named, masked=False).emit(share)
        return
    any_zero = flags[0][0]
    for flag in flags[1:]:
        any_zero = any_zero | flag[0]
    with T.If(any_zero == 0):
        with T.Then():
            _Product(spec, profile, named, masked=False).emit(share)
        with T.Else():
            _Product(spec, profile, named, masked=True).emit(share)


class _Product:
    """One version of the kernel: without zeros (``masked`` false), or exact with them."""

    def __init__(
        self, spec: BatchMatmul, profile: Profile, named: dict[str, Buffer], masked: bool
    ) -> None:
        self.spec, self.profile, self.named = spec, profile, named
        kinds = [
            [Kind.SIGN if k is Kind.MASKED and not masked else k for k in side]
            for side in (spec.a_kinds, spec.b_kinds)
        ]
        self.forms = [[form(a, b) for b in kinds[1]] for a in kinds[0]]
        passes = sum(f.passes for row in self.forms for f in row)
        self.tile = choose(profile, spec.a.tokens, spec.b.tokens, passes)
        need_a = [any(f.a_count for f in row) for row in self.forms]
        need_b = [any(row[r].b_count for row in self.forms) for r in range(len(kinds[1]))]
        self.a = self._planes("a", spec.a, kinds[0], need_a)
        self.b = self._planes("b", spec.b, kinds[1], need_b)

    def _planes(
        self, name: str, rows: Rows, kinds: Sequence[Kind], counted: Sequence[bool]
    ) -> list[Plane]:
        return [
            Plane(
                kind,
                self.named[f"{name}{i}_bits"],
                self.named[f"{name}{i}_nonzero"] if kind is Kind.MASKED else None,
                v.workspace((rows.packed_shape[2],), "int32") if counted[i] else None,
            )
            for i, kind in enumerate(kinds)
        ]

    def emit(self, share: Share) -> None:
        """Loops over batch, columns and rows; columns are cut into blocks of nearly equal width."""
        tiles = share.span(-(-self.spec.a.tokens // self.tile.rows))
        vectors = -(-self.spec.b.tokens // LANES)
        blocks = -(-vectors // self.tile.vectors)
        width, wider = divmod(vectors, blocks)
        with T.serial(self.spec.a.batch) as batch:
            for plane, side in [(p, self.spec.a) for p in self.a] + [
                (p, self.spec.b) for p in self.b
            ]:
                self._count_rows(plane, side, batch)
            if wider:
                with T.serial(wider) as block:
                    self._rows(tiles, batch, v.bind(block * ((width + 1) * LANES)), width + 1)
            with T.serial(blocks - wider) as block:
                start = wider * (width + 1) * LANES
                self._rows(tiles, batch, v.bind(block * (width * LANES) + start), width)

    def _rows(self, tiles: tuple[Expr, Expr], batch: Expr, column: Expr, vectors: int) -> None:
        """A part's tiles below each other; the last rows of all overlap the ones before."""
        tokens, rows = self.spec.a.tokens, self.tile.rows
        with T.serial(*tiles) as i:
            row = v.bind(T.min(i * rows, tokens - rows))
            self._tile(batch, row, column, vectors)

    def _count_rows(self, plane: Plane, side: Rows, batch: Expr) -> None:
        if plane.counts is None:
            return
        with T.serial(side.packed_shape[2] // LANES) as block:
            total = count_words(
                self.profile,
                side.packed_shape[1],
                LANES,
                1,
                lambda k: [v.load(plane.counted, batch, k, block * LANES, lanes=LANES)],
            )
            counted = dot_of(v.load(total, 0, 0, lanes=LANES), LANES)
            v.store(plane.counts, counted, block * LANES, lanes=LANES)

    def _tile(self, batch: Expr, row: Expr, column: Expr, vectors: int) -> None:
        tile = Tile(self.tile.rows, vectors)
        count = tile.rows * tile.vectors
        y = v.local((count, LANES), "float32")
        pairs = [(g, r) for g in range(len(self.a)) for r in range(len(self.b))]
        for index, (g, r) in enumerate(pairs):
            weight = v.splat(
                v.bind(v.rounded(self.named["a_scale"][g] * self.named["b_scale"][r])), LANES
            )
            dots = self._dots(self.forms[g][r], self.a[g], self.b[r], (batch, row, column), tile)
            for i, dot in enumerate(dots):
                value = v.rounded(T.cast(dot, f"float32x{LANES}") * weight)
                if index:
                    value = v.load(y, i, 0, lanes=LANES) + value
                v.store(y, value, i, 0, lanes=LANES)
        for m in range(tile.rows):
            for n in range(vectors):
                value = v.load(y, m * vectors + n, 0, lanes=LANES)
                self._store(value, batch, row + m, column + n * LANES, last=n == vectors - 1)

    def _store(self, value: Expr, batch: Expr, row: Expr, column: Expr, last: bool) -> None:
        """Write a vector; ``last``: it may reach beyond the last token of b."""
        y, tokens = self.named["y"], self.spec.b.tokens
        rest = tokens % LANES
        if not (last and rest):
            v.store(y, value, batch, row, column, lanes=LANES)
            return
        with T.If(column + LANES <= tokens):
            with T.Then():
                v.store(y, value, batch, row, column, lanes=LANES)
            with T.Else():
                kept = T.Shuffle([value], list(range(rest)))
                if rest == 1:
                    v.put(y, kept, batch, row, column)
                else:
                    v.store(y, kept, batch, row, column, lanes=rest)

    def _dots(
        self, shape: Form, a: Plane, b: Plane, at: tuple[Expr, Expr, Expr], tile: Tile
    ) -> list[Expr]:
        """int32 vectors of the tile, row by row."""
        _, row, column = at
        first = self._counts(shape.first, a, b, at, tile)
        second = self._counts(shape.second, a, b, at, tile) if shape.second else None

        def const(value: int) -> Expr:
            return v.splat(value, LANES, "int32")

        dots = []
        for m in range(tile.rows):
            for n in range(tile.vectors):
                i = m * tile.vectors + n
                dot = const(shape.slope) * dot_of(v.load(first, i, 0, lanes=LANES), LANES)
                if second is not None:
                    other = dot_of(v.load(second, i, 0, lanes=LANES), LANES)
                    dot = dot + const(shape.second_slope) * other
                if shape.features:
                    dot = dot + const(self.spec.a.features)
                if shape.a_count:
                    counts = v.splat(a.counts[row + m], LANES)
                    dot = dot + const(shape.a_count) * counts
                if shape.b_count:
                    counts = v.load(b.counts, column + n * LANES, lanes=LANES)
                    dot = dot + const(shape.b_count) * counts
                dots.append(dot)
        return dots

    def _counts(
        self, term: Term, a: Plane, b: Plane, at: tuple[Expr, Expr, Expr], tile: Tile
    ) -> Buffer:
        batch, row, column = at

        def terms(k: Expr) -> list[Expr]:
            columns = [
                b.words(batch, k, column + n * LANES, lanes=LANES) for n in range(tile.vectors)
            ]
            found = []
            for m in range(tile.rows):
                left = a.words(batch, k, row + m, lanes=1)
                found += [term(left, right) for right in columns]
            return found

        words = self.spec.a.packed_shape[1]
        return count_words(self.profile, words, LANES, tile.rows * tile.vectors, terms)
