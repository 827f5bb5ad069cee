"""Values of a head turned, so that bits run along keys: squares of 32 tokens by 32 channels."""

from dataclasses import dataclass
from enum import StrEnum

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import AttentionValue, Kind
from gsb_tvm.schedules.attention_value.cuda_head import Head
from gsb_tvm.schedules.cuda.grid import WARP, Place, call, registers, scratch, shared
from gsb_tvm.schedules.cuda.tile import HALF_WORDS, MMA_COLUMNS, SKEW
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put

WORD_TILES = WORD_BITS // MMA_COLUMNS  # of 8 channels in a word
AHEAD = 4  # squares that a warp reads before it turns the first


class Where(StrEnum):
    """Where turned values lie."""

    SHARED = "shared"  # every block turns what it needs
    GLOBAL = "global"  # a launch before turns them all


def key_rows(spec: AttentionValue) -> int:
    """Words of keys, rounded up to what a product takes."""
    return -(-words(spec.v.tokens) // HALF_WORDS) * HALF_WORDS


def planes(spec: AttentionValue) -> int:
    """Turned planes: positive bits, a mask for each other value plane, nonzero bits."""
    return spec.v_groups + (spec.value_kind is Kind.MASKED)


def shared_bytes(spec: AttentionValue, channel_words: int) -> int:
    """Shared memory of ``channel_words`` words of channels."""
    row = planes(spec) * (channel_words * WORD_BITS + SKEW)
    keys = (spec.v_groups - 1) * channel_words * WORD_TILES
    return 4 * key_rows(spec) * (row + keys)


class Values:
    """Memory of turned planes, by plane, word of keys and channel of the block.

    Plane 0 holds positive values; plane r the value mask r - 1, the last, where values may be
    zero, those that are not. Masks hold no zeros. ``keys`` holds for 8 channels of a mask the keys
    at which any of them is set.

    Words of keys beyond the last may be anything: attention has no bits there.
    """

    def __init__(self, spec: AttentionValue, channel_words: int, where: Where) -> None:
        self._spec, self._words, self._where = spec, channel_words, where
        rows, channels = key_rows(spec), channel_words * WORD_BITS
        masks, tiles = spec.v_groups - 1, channel_words * WORD_TILES
        self._keys: Buffer | None = None
        if where is Where.SHARED:
            self._planes = shared((planes(spec), rows, channels + SKEW), "uint32")
            if masks:
                self._keys = shared((masks, rows, tiles), "uint32")
            return
        blocks = spec.v.batch * spec.v.groups * (words(spec.v.width) // channel_words)
        self._planes = scratch("turned", (blocks, planes(spec), rows, channels), "uint32")
        if masks:
            self._keys = scratch("turned_keys", (blocks, masks, rows, tiles), "uint32")

    def _at(self, head: Head, plane: int, row: Expr, column: Expr) -> tuple[Expr, ...]:
        if self._where is Where.SHARED:
            return plane, row, column
        blocks = words(self._spec.v.width) // self._words
        block = head.unit * blocks + head.first_word // self._words
        return block, plane, row, column

    def positive(self, head: Head, word: Expr, channel: Expr) -> Expr:
        """A word of keys of a channel: where its value is positive."""
        return self._planes[self._at(head, 0, word, channel)]

    def mask(self, head: Head, r: int, word: Expr, channel: Expr) -> Expr:
        """Where value plane ``r`` is not zero; r = 0 only where values may be."""
        return self._planes[self._at(head, r or self._spec.v_groups, word, channel)]

    def keys(self, head: Head, r: int, word: Expr, tile: Expr) -> Expr:
        """Where value plane ``r`` >= 1 is not zero in any of 8 channels."""
        assert self._keys is not None
        return self._keys[self._at(head, r - 1, word, tile)]

    def fill(self, head: Head, place: Place, zeros: Expr | None, keys: bool) -> None:
        """Turn all planes; a warp takes a square of every plane at a time.

        ``zeros`` says whether values may be zero (None: never); ``keys``: those are needed, too.
        """
        warps, units = place.threads // WARP, head.key_words * self._words
        rounds = -(-units // warps)
        ahead = min(rounds, AHEAD)
        with T.serial(-(-rounds // ahead)) as i:
            squares = []
            for j in range(ahead):
                # Squares beyond the last are the last once more.
                unit = bind(T.min((i * ahead + j) * warps + place.warp, units - 1))
                word, x = bind(unit // self._words), bind(unit % self._words)
                squares.append(_Square(head, word, x, bind(word * WORD_BITS + place.lane)))
            read = [square.read() for square in squares]
            if zeros is not None:
                self._without_zeros(squares, read, zeros)
            for square, planes in zip(squares, read, strict=True):
                for plane, mine in enumerate(planes):
                    self._turn(square, place, plane, mine)
                    if plane and keys:
                        self._write_keys(square, place, plane, mine)
            if zeros is not None:
                with T.If(zeros), T.Then():
                    for square in squares:
                        self._turn(square, place, self._spec.v_groups, square.nonzero())

    def _without_zeros(self, squares: list["_Square"], read: list[list[Expr]], zeros: Expr) -> None:
        """Take zeros from what was read, before which nobody waits to know whether there are."""
        kept = registers(len(squares), "uint32")
        for i in range(len(squares)):
            put(kept, T.uint32(0xFFFFFFFF), i)
        with T.If(zeros), T.Then():
            for i, square in enumerate(squares):
                put(kept, square.nonzero(), i)
        for i, planes in enumerate(read):
            planes[:] = [bind(mine & kept[i]) for mine in planes]

    def _turn(self, square: "_Square", place: Place, plane: int, mine: Expr) -> None:
        turned = call("gsb_turn", mine, place.lane, dtype="uint32")
        column = square.x * WORD_BITS + place.lane
        put(self._planes, turned, *self._at(square.head, plane, square.word, column))

    def _write_keys(self, square: "_Square", place: Place, r: int, mine: Expr) -> None:
        found: Expr = T.uint32(0)
        for n in range(WORD_TILES):
            some = (mine & T.uint32(0xFF << (n * MMA_COLUMNS))) != T.uint32(0)
            keys = bind(call("gsb_ballot", some, dtype="uint32"))
            found = T.Select(place.lane == n, keys, found)
        assert self._keys is not None
        tile = square.x * WORD_TILES + place.lane
        with T.If(place.lane < WORD_TILES), T.Then():
            put(self._keys, found, *self._at(square.head, r - 1, square.word, tile))


@dataclass(frozen=True)
class _Square:
    """32 keys, of which this lane has ``token``, by the 32 channels of word ``x``."""

    head: Head
    word: Expr
    x: Expr
    token: Expr

    def read(self) -> list[Expr]:
        """Words of this lane: positive bits, value masks."""
        masks = range(self.head.spec.v_groups - 1)
        bits = bind(self.head.value("v_bits", self.x, self.token))
        return [bits, *(bind(self.head.value("v_masks", self.x, self.token, r)) for r in masks)]

    def nonzero(self) -> Expr:
        """Word of this lane: values that are not zero."""
        return self.head.value("v_nonzero", self.x, self.token)
