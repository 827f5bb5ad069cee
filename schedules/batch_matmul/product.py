"""Sum over all pairs of planes of exact dot products, weighted.

Lanes are tokens of b, neighbours of one word; words of a are broadcast. Integers are exact per
pair. A pair's weight is ``fl(a_scale * b_scale)``; products and the running sum over P pairs are
rounded to float32, so ``|y - exact| <= (P + 1) * 2**-24 * sum |weight * dot|`` up to second order.

Parts share the row tiles of every batch element, and each counts the set bits of all rows for
itself. Rows that two tiles have in common are written twice with the same numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import BatchMatmul, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.batch_matmul.formula import Form, Term, Words, forms, kinds, passes
from gsb_tvm.schedules.batch_matmul.space import Order, Parameters, fitted_rows
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

    def neighbours(self, *index: Expr, lanes: int) -> Words:
        """Neighbouring words."""
        return self._words(lambda buffer: v.load(buffer, *index, lanes=lanes))

    def broadcast(self, *index: Expr, lanes: int) -> Words:
        """One word in every lane."""
        return self._words(lambda buffer: v.splat(buffer[tuple(index)], lanes))

    def _words(self, take: Callable[[Buffer], Expr]) -> Words:
        bits = v.bind(take(self.bits))
        return bits, None if self.nonzero is None else v.bind(take(self.nonzero))


def kernel(spec: BatchMatmul, profile: Profile, parameters: Parameters) -> tirx.PrimFunc:
    """PrimFunc of ``spec``: its inputs, then its output."""
    names = [name for name, _, _ in spec.inputs() + spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = dict(zip(names, buffers, strict=True))
        with phase() as share:
            _part(spec, profile, parameters, named, share)

    return v.prim_func(spec.inputs() + spec.outputs(), body)


def _part(
    spec: BatchMatmul,
    profile: Profile,
    parameters: Parameters,
    named: dict[str, Buffer],
    share: Share,
) -> None:
    """One part: exact with zeros where a flag says that there are any."""

    def emit(*, masked: bool) -> None:
        _Product(spec, profile, parameters, named, masked).emit(share)

    flags = [named[name] for name, _, _ in spec.inputs() if name.endswith("_zeros")]
    if not flags:
        emit(masked=False)
        return
    any_zero = flags[0][0]
    for flag in flags[1:]:
        any_zero = any_zero | flag[0]
    with T.If(any_zero == 0):
        with T.Then():
            emit(masked=False)
        with T.Else():
            emit(masked=True)


class _Product:
    """One version of the kernel: without zeros (``masked`` false), or exact with them."""

    def __init__(
        self,
        spec: BatchMatmul,
        profile: Profile,
        parameters: Parameters,
        named: dict[str, Buffer],
        masked: bool,
    ) -> None:
        self.spec, self.profile, self.named = spec, profile, named
        self.parameters, self.lanes = parameters, parameters.lanes
        self.rows = fitted_rows(parameters, passes(spec, masked))
        self.forms = forms(spec, masked)
        a_kinds, b_kinds = kinds(spec, masked)
        need_a = [any(f.a_count for f in row) for row in self.forms]
        need_b = [any(row[r].b_count for row in self.forms) for r in range(len(b_kinds))]
        self.a = self._planes("a", spec.a, a_kinds, need_a)
        self.b = self._planes("b", spec.b, b_kinds, need_b)

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
        """Loops over batch, and columns and rows in the order that was chosen."""
        tiles = share.span(-(-self.spec.a.tokens // self.rows))
        with T.serial(self.spec.a.batch) as batch:
            for plane, side in [(p, self.spec.a) for p in self.a] + [
                (p, self.spec.b) for p in self.b
            ]:
                self._count_rows(plane, side, batch)
            if self.parameters.order is Order.COLUMNS:
                self._for_blocks(
                    lambda column, vectors: self._for_rows(
                        tiles, lambda row: self._tile(batch, row, column, vectors)
                    )
                )
            else:
                self._for_rows(
                    tiles,
                    lambda row: self._for_blocks(
                        lambda column, vectors: self._tile(batch, row, column, vectors)
                    ),
                )

    def _for_blocks(self, body: Callable[[Expr, int], None]) -> None:
        """Blocks of columns, of nearly equal width: ``body(column, vectors)``."""
        vectors = -(-self.spec.b.tokens // self.lanes)
        blocks = -(-vectors // self.parameters.vectors)
        width, wider = divmod(vectors, blocks)
        if wider:
            with T.serial(wider) as block:
                body(v.bind(block * ((width + 1) * self.lanes)), width + 1)
        with T.serial(blocks - wider) as block:
            start = wider * (width + 1) * self.lanes
            body(v.bind(block * (width * self.lanes) + start), width)

    def _for_rows(self, tiles: tuple[Expr, Expr], body: Callable[[Expr], None]) -> None:
        """A part's tiles below each other; the last rows of all overlap the ones before."""
        with T.serial(*tiles) as i:
            body(v.bind(T.min(i * self.rows, self.spec.a.tokens - self.rows)))

    def _count_rows(self, plane: Plane, side: Rows, batch: Expr) -> None:
        if plane.counts is None:
            return
        with T.serial(side.packed_shape[2] // self.lanes) as block:
            total = count_words(
                self.profile,
                side.packed_shape[1],
                self.lanes,
                1,
                lambda k: [v.load(plane.counted, batch, k, block * self.lanes, lanes=self.lanes)],
            )
            counted = dot_of(v.load(total, 0, 0, lanes=self.lanes), self.lanes)
            v.store(plane.counts, counted, block * self.lanes, lanes=self.lanes)

    def _tile(self, batch: Expr, row: Expr, column: Expr, vectors: int) -> None:
        count = self.rows * vectors
        y = v.local((count, self.lanes), "float32")
        pairs = [(g, r) for g in range(len(self.a)) for r in range(len(self.b))]
        for index, (g, r) in enumerate(pairs):
            weight = v.splat(
                v.bind(v.rounded(self.named["a_scale"][g] * self.named["b_scale"][r])), self.lanes
            )
            dots = self._dots(self.forms[g][r], self.a[g], self.b[r], (batch, row, column), vectors)
            for i, dot in enumerate(dots):
                value = v.rounded(T.cast(dot, f"float32x{self.lanes}") * weight)
                if index:
                    value = v.load(y, i, 0, lanes=self.lanes) + value
                v.store(y, value, i, 0, lanes=self.lanes)
        for m in range(self.rows):
            for n in range(vectors):
                value = v.load(y, m * vectors + n, 0, lanes=self.lanes)
                self._store(value, batch, row + m, column + n * self.lanes, last=n == vectors - 1)

    def _store(self, value: Expr, batch: Expr, row: Expr, column: Expr, last: bool) -> None:
        """Write a vector; ``last``: it may reach beyond the last token of b."""
        y, tokens = self.named["y"], self.spec.b.tokens
        rest = tokens % self.lanes
        if not (last and rest):
            v.store(y, value, batch, row, column, lanes=self.lanes)
            return
        with T.If(column + self.lanes <= tokens):
            with T.Then():
                v.store(y, value, batch, row, column, lanes=self.lanes)
            with T.Else():
                kept = T.Shuffle([value], list(range(rest)))
                if rest == 1:
                    v.put(y, kept, batch, row, column)
                else:
                    v.store(y, kept, batch, row, column, lanes=rest)

    def _dots(
        self, shape: Form, a: Plane, b: Plane, at: tuple[Expr, Expr, Expr], vectors: int
    ) -> list[Expr]:
        """int32 vectors of the tile, row by row."""
        _, row, column = at
        first = self._counts(shape.first, a, b, at, vectors)
        second = self._counts(shape.second, a, b, at, vectors) if shape.second else None

        def const(value: int) -> Expr:
            return v.splat(value, self.lanes, "int32")

        dots = []
        for m in range(self.rows):
            for n in range(vectors):
                i = m * vectors + n
                dot = const(shape.slope) * dot_of(v.load(first, i, 0, lanes=self.lanes), self.lanes)
                if second is not None:
                    other = dot_of(v.load(second, i, 0, lanes=self.lanes), self.lanes)
                    dot = dot + const(shape.second_slope) * other
                if shape.features:
                    dot = dot + const(self.spec.a.features)
                if shape.a_count:
                    counts = v.splat(a.counts[row + m], self.lanes)
                    dot = dot + const(shape.a_count) * counts
                if shape.b_count:
                    counts = v.load(b.counts, column + n * self.lanes, lanes=self.lanes)
                    dot = dot + const(shape.b_count) * counts
                dots.append(dot)
        return dots

    def _counts(
        self, term: Term, a: Plane, b: Plane, at: tuple[Expr, Expr, Expr], vectors: int
    ) -> Buffer:
        (batch, row, column), lanes = at, self.lanes

        def terms(k: Expr) -> list[Expr]:
            starts = [column + n * lanes for n in range(vectors)]
            columns = [b.neighbours(batch, k, start, lanes=lanes) for start in starts]
            found = []
            for m in range(self.rows):
                left = a.broadcast(batch, k, row + m, lanes=lanes)
                found += [term(left, right) for right in columns]
            return found

        words = self.spec.a.packed_shape[1]
        return count_words(self.profile, words, lanes, self.rows * vectors, terms)
