"""The kernel of a dense layer, and its loop nest by counting.

Column blocks, then token tiles, then register tiles. The weights of a column block stay in L1
while all tokens of a part pass; a token tile's words are neighbours in memory. Tails are tiles of
their own, cut when the kernel is written: nothing outside a tensor's logical shape is ever stored.
Parts share the token tiles of every batch element, and each prepares the column blocks for itself.
"""

from collections.abc import Callable
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense import amx, pairs, slices
from gsb_tvm.schedules.dense.carry_save import count_carry_save
from gsb_tvm.schedules.dense.counters import Cells, Tile, count_bytes, count_words, repeat
from gsb_tvm.schedules.dense.epilogue import Block, Epilogue, epilogue, span
from gsb_tvm.schedules.dense.formula import Base, Product, Term, product
from gsb_tvm.schedules.dense.lookup import Lookup
from gsb_tvm.schedules.dense.operands import Plane, column_base
from gsb_tvm.schedules.dense.pairs_epilogue import pairs_epilogue
from gsb_tvm.schedules.dense.slices_epilogue import slices_epilogue
from gsb_tvm.schedules.dense.tiles import LINE_WORDS, Method, Tiles, lines_ahead, method, tiles
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.vector import bind, local, prefetch, prim_func, splat
from gsb_tvm.targets import Profile

Expr = Any
Buffer = Any


_COUNTS: dict[Method, Callable[[Tile, tuple[Term, ...]], Cells]] = {
    Method.WORDS: count_words,
    Method.BYTES: count_bytes,
    Method.CARRY_SAVE: count_carry_save,
}


def kernel(spec: Dense, profile: Profile, how: Method | None = None) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``.

    ``spec.column_tile`` must be the profile's (:func:`column_tile`). ``how`` overrides the choice
    of :func:`method`.
    """
    assert spec.column_tile == tiles(profile).column_tile
    write = _WRITERS.get(how or method(spec, profile), _write_counts)
    tensors = [*spec.inputs(), *spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        zeros = Flag(named["out_zeros"]) if "out_zeros" in named else None
        write(spec, profile, named, zeros)
        if zeros is not None:
            zeros.write()

    return prim_func(tensors, body)


def _write_tiles(
    spec: Dense, profile: Profile, named: dict[str, Buffer], zeros: Flag | None
) -> None:
    """The phase of the layer by tile products."""
    scratch = amx.Scratch(spec, profile)
    with phase() as share:
        finish = epilogue(spec, named, profile.lanes)
        amx.Nest(spec, named, finish, share, scratch).write()
        finish.leave(share, zeros)


def _write_pairs(
    spec: Dense, profile: Profile, named: dict[str, Buffer], zeros: Flag | None
) -> None:
    """The phase of the layer by pairs of bytes; of masked activations with zeros by single ones."""
    spread = pairs.spread_activation(spec)

    def count(share: Share, activation: Kind) -> None:
        finish = pairs_epilogue(spec, named)
        form = product(activation, spec.weight)
        pairs.Nest(spec, named, form, finish, share, spread).write()
        finish.leave(share, zeros)

    _write_without_zeros(spec, profile, named, zeros, count)


def _write_slices(
    spec: Dense, profile: Profile, named: dict[str, Buffer], zeros: Flag | None
) -> None:
    """The phase of the layer by tables; of masked activations with zeros by single ones."""
    prepared = slices.prepare(spec, named["a_bits"])

    def count(share: Share, activation: Kind) -> None:
        form = product(activation, spec.weight)
        finish = slices_epilogue(spec, named, form.factor)
        slices.Nest(spec, named, form, finish, share, prepared).write()

    _write_without_zeros(spec, profile, named, zeros, count)


def _write_without_zeros(
    spec: Dense,
    profile: Profile,
    named: dict[str, Buffer],
    zeros: Flag | None,
    count: Callable[[Share, Kind], None],
) -> None:
    """The phase of the layer by ``count``, which knows no zeros; with any, by counting."""
    with phase() as share:
        _by_activation(
            spec,
            named,
            lambda kind: count(share, kind),
            lambda kind: _count(spec, profile, named, zeros, share, kind),
        )


def _write_counts(
    spec: Dense, profile: Profile, named: dict[str, Buffer], zeros: Flag | None
) -> None:
    """The phase of the layer by counting."""

    def count(kind: Kind) -> None:
        _count(spec, profile, named, zeros, share, kind)

    with phase() as share:
        _by_activation(spec, named, count, count)


def _by_activation(
    spec: Dense,
    named: dict[str, Buffer],
    plain: Callable[[Kind], None],
    masked: Callable[[Kind], None],
) -> None:
    """``plain`` or ``masked`` of the activation's kind; without zeros a masked one is of signs."""
    if spec.activation is not Kind.MASKED:
        plain(spec.activation)
        return
    with T.If(named["a_zeros"][0] == 0):
        with T.Then():
            plain(Kind.SIGN)
        with T.Else():
            masked(Kind.MASKED)


def _count(
    spec: Dense,
    profile: Profile,
    named: dict[str, Buffer],
    zeros: Flag | None,
    share: Share,
    activation: Kind,
) -> None:
    """One form of the product by counting."""
    shape = tiles(profile)
    finish = epilogue(spec, named, shape.lanes)
    _Nest(spec, shape, named, product(activation, spec.weight), finish, share).write()
    finish.leave(share, zeros)


_WRITERS = {Method.TILES: _write_tiles, Method.PAIRS: _write_pairs, Method.SLICES: _write_slices}


class _Nest:
    """Writes a part's loops for one form of the product."""

    def __init__(
        self,
        spec: Dense,
        shape: Tiles,
        named: dict[str, Buffer],
        product: Product,
        finish: Epilogue,
        share: Share,
    ) -> None:
        self.spec, self.shape, self.product = spec, shape, product
        self.finish, self.share = finish, share
        self.tiles = share.span(spec.rows.tokens // shape.rows)
        self.words = spec.rows.packed_shape[1]
        self.activation = Plane(named["a_bits"], named.get("a_nonzero"))
        self.weight = Plane(named["weight"], named.get("weight_nonzero"))
        self.lookup: Lookup | None = None
        if shape.method is Method.LOOKUP:
            self.lookup = Lookup(product.terms, self.words, shape.column_tile)

    def write(self) -> None:
        """Emit the part's tokens of the whole layer."""
        with T.serial(0, self.spec.rows.batch) as batch:
            repeat(
                self.spec.computed_columns,
                self.shape.column_tile,
                lambda first, columns: self._block(batch, first, columns),
            )

    def _block(self, batch: Expr, first: Expr, columns: int) -> None:
        tile = T.floordiv(first, self.shape.column_tile)
        base: int | Buffer = 0
        if self.product.base is Base.FEATURES:
            base = self.spec.rows.features
        elif self.product.base is Base.COLUMN:
            base = column_base(
                self.weight, self.product, tile, self.words, columns, self.shape.lanes
            )
        beside = 0 if self.product.halved else base
        block = Block(batch, first, columns, beside, self.product.factor)
        self.finish.enter(block)
        if self.lookup is not None:
            self.lookup.enter(columns, lambda part, k, at: self.weight.read(part, tile, k, at))
        self._tokens(lambda token, height: self._rows(block, base, tile, token, height))

    def _tokens(self, rows: Callable[[Expr, int], None]) -> None:
        """``rows(first, height)`` for every token tile of the part; the tail is the last part's."""
        full, rest = divmod(self.spec.rows.tokens, self.shape.rows)
        if full:
            with T.serial(*self.tiles) as i:
                rows(bind(i * self.shape.rows), self.shape.rows)
        if rest:
            with T.If(self.share.is_last), T.Then():
                rows(full * self.shape.rows, rest)

    def _rows(self, block: Block, base: int | Buffer, tile: Expr, token: Expr, height: int) -> None:
        lanes = self.shape.lanes
        self._fetch_ahead(tile, token)
        vectors = -(-block.columns // lanes)
        counts = [local((vectors * lanes,), "int32") for _ in range(height)]

        def register_tile(first: Expr, wide: int) -> None:
            total = self._count(block.batch, tile, token, height, first, wide)
            for (i, j), value in total.items():
                at = span((first + j) * lanes, lanes)
                if self.product.halved:
                    value = value if isinstance(base, int) else value - base[at]
                    value = value >> splat(1, lanes, "int32")
                T.buffer_store(counts[i], value, [at])

        repeat(vectors, self.shape.vectors, register_tile)
        for i in range(height):
            self.finish.row(block, token + i, counts[i])

    def _fetch_ahead(self, tile: Expr, token: Expr) -> None:
        """Ask for a token tile's share of the next block's weights.

        They are met once per image and come from L3 or memory; a block takes long enough for that.
        """
        tokens, height = self.spec.rows.tokens, self.shape.rows
        each, per_word = lines_ahead(self.words, self.shape, -(-tokens // height))
        last = self.spec.padded_columns // self.shape.column_tile - 1
        ahead = bind(T.min(tile + 1, T.int32(last)))
        for i in range(each):
            line = bind(T.floordiv(token, height) * each + i)
            word = T.min(T.floordiv(line, per_word), T.int32(self.words - 1))
            prefetch(self.weight.bits, ahead, word, T.floormod(line, per_word) * LINE_WORDS)

    def _count(
        self, batch: Expr, tile: Expr, token: Expr, height: int, first: Expr, wide: int
    ) -> Cells:
        lanes = self.shape.lanes

        def activation(term: Term, word: Expr, row: int) -> Expr:
            return self.activation.read(term.activation, batch, word, token + row)

        def weight(term: Term, word: Expr, vector: int) -> Expr:
            return self.weight.read(term.weight, tile, word, span((first + vector) * lanes, lanes))

        cells = Tile(height, wide, lanes, self.words, activation, weight)
        if self.lookup is not None:
            return self.lookup.count(cells, self.product.terms, first)
        method = self.shape.method
        if method is Method.CARRY_SAVE and len(self.product.terms) > 1:
            method = Method.BYTES  # rare paths: small code rather than fast code
        return _COUNTS[method](cells, self.product.terms)
