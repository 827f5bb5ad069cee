"""Blocks of query rows on Neon: scores as bytes, and masks from estimates."""

from itertools import zip_longest

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import padded_tokens, words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import byte_table, scores
from gsb_tvm.schedules.attention_planes.byte_vectors import QUAD, reduced
from gsb_tvm.schedules.attention_planes.candidates import Candidates
from gsb_tvm.schedules.attention_planes.estimate import Estimate
from gsb_tvm.schedules.attention_planes.masks import Masks
from gsb_tvm.schedules.attention_planes.row import Accumulator, Piece
from gsb_tvm.schedules.attention_planes.softmax import Block, Buffers
from gsb_tvm.schedules.attention_planes.space import By, Numerators, Parameters
from gsb_tvm.schedules.counting import reinterpret
from gsb_tvm.schedules.neon import BYTES, add_pairs
from gsb_tvm.targets import Profile

ABSENT = 255  # count of a key that does not exist: above every slot, and -1 as a signed byte


class NeonBlock(Block):
    """The stages of a block where scores are bytes."""

    def __init__(
        self, spec: AttentionPlanes, profile: Profile, parameters: Parameters, t: Buffers
    ) -> None:
        super().__init__(spec, profile, parameters, t)
        self.blocks = padded_tokens(self.tokens) // BYTES
        self.counts = v.workspace((self.blocks, self.rows, BYTES), "uint8")
        self.largest = v.local((self.rows,), "int32")

    def make_table(self) -> bool:
        """Fill a table of exponentials; whether there is to be one."""
        if self.parameters.numerators is not Numerators.TABLE:
            return False
        self.bytes = byte_table.Table(self.spec, self.t["scalars"])
        return True

    def count(self, at: scores.Head, first: v.Expr) -> None:
        """Counts of equal signs, and each row's largest; 16 keys stay in registers for all rows."""
        planes = [(at.batch, at.head * self.per_head + k) for k in range(self.per_head)]
        largest = [v.local((BYTES,), "int8") for _ in range(self.rows)]
        for row in largest:
            v.store(row, v.splat(-1, BYTES, "int8"), 0, lanes=BYTES)
        queries = [
            [v.bind(~self.t["q_bits"][(*plane, first + r)]) for plane in planes]
            for r in range(self.rows)
        ]

        def emit(block: v.Expr, exist: int) -> None:
            keys = [
                [
                    v.bind(v.load(self.t["k_bits"], *plane, block * BYTES + i, lanes=QUAD))
                    for plane in planes
                ]
                for i in range(0, exist, QUAD)
            ]
            for r, query in enumerate(queries):
                counts = v.bind(_existing(_counted(query, keys), exist))
                v.store(self.counts, counts, block, r, 0, lanes=BYTES)
                signed = reinterpret(counts, f"int8x{BYTES}")
                highest = v.maximum(v.load(largest[r], 0, lanes=BYTES), signed)
                v.store(largest[r], highest, 0, lanes=BYTES)

        whole, rest = divmod(self.tokens, BYTES)
        with T.serial(whole) as block:
            emit(block, BYTES)
        if rest:
            emit(whole, rest)
        for r, row in enumerate(largest):
            highest = reduced("smax", v.load(row, 0, lanes=BYTES))
            v.put(self.largest, T.cast(highest, "int32"), r)

    @property
    def per_head(self) -> int:
        """Words of a head."""
        return words(self.spec.q.width)

    def look_up(self) -> None:
        """Exponentials of the counts, from the table, and the sum of each row."""
        with T.serial(self.rows) as r:
            largest = v.bind(self.largest[r])
            if self.bytes.beyond is None:
                self._look_up_bytes(r, largest)
            else:
                with T.If(largest == self.bytes.most):
                    with T.Then():
                        self._look_up_singly(self.bytes.beyond, r)
                    with T.Else():
                        self._look_up_bytes(r, largest)
        self._add_up()

    def _look_up_bytes(self, r: v.Expr, largest: v.Expr) -> None:
        row = self.bytes.row(largest)

        def emit(piece: Piece) -> None:
            for key in range(0, piece.lanes, BYTES):
                block = (piece.first + key) // BYTES
                counts = v.bind(v.load(self.counts, block, r, 0, lanes=BYTES))
                for i, e in enumerate(byte_table.look_up(row, counts)):
                    v.store(self.values, e, r, piece.first + key + QUAD * i, lanes=QUAD)

        self.for_pieces(emit)

    def _look_up_singly(self, table: v.Buffer, r: v.Expr) -> None:
        with T.serial(self.tokens) as key:
            count = self.counts[key // BYTES, r, key % BYTES]
            v.put(self.values, table[T.cast(count, "int32")], r, key)
        for key in range(self.tokens, padded_tokens(self.tokens)):
            v.put(self.values, tirx.const(0.0, "float32"), r, key)

    def _add_up(self) -> None:
        """The sum of each row, in the order of the general path.

        Not where exponentials are looked up: table and sums together do not fit into registers.
        """
        with T.serial(self.rows) as r:
            total = Accumulator(0.0, v.add)

            def emit(piece: Piece) -> None:
                e = v.load(self.values, r, piece.first, lanes=piece.lanes)
                total.take(v.bind(e), piece.lanes)

            self.for_pieces(emit)
            v.put(self.sum, total.total(), r)

    def _binarize_row(
        self,
        masks: Masks,
        candidates: Candidates | None,
        at: scores.Head,
        r: v.Expr,
        query: v.Expr,
    ) -> None:
        """Masks from estimates; exactly, and listed, where an estimate does not decide."""
        if self.parameters.by is not By.ESTIMATES:
            super()._binarize_row(masks, candidates, at, r, query)
            return
        spec = self.spec
        estimate = Estimate(self.tokens, masks, candidates, v.bind(self.sum[r]))
        start, ahead, plane_row = self._places(at, query)

        def emit(piece: Piece) -> None:
            keys = [piece.first + i for i in range(0, piece.lanes, QUAD)]
            e = [v.load(self.values, r, key, lanes=QUAD) for key in keys]
            bias = None
            if spec.bias:
                bias = [v.load(self.t["bias"], start + key, lanes=QUAD) for key in keys]
                self._fetch_bias(ahead + piece.first, piece.lanes)
            word = v.bind((plane_row + piece.word) * masks.row + query)
            estimate.take(e, bias, piece, word)

        self.for_pieces(emit)
        with T.If(estimate.is_undecided()), T.Then():
            exact = self._exact(masks, candidates, at, r, query)

            def settle(piece: Piece) -> None:
                with T.If(estimate.is_undecided_in(piece)), T.Then():
                    exact(piece)

            self.for_pieces(settle)


def _counted(query: list[v.Expr], keys: list[list[v.Expr]]) -> v.Expr:
    """Set bits of each of 16 keys xor a query, from up to four vectors of every word."""
    counts = []
    for key in keys:
        terms = [
            v.popcount(reinterpret(word ^ v.splat(bits, QUAD, "uint32"), f"uint8x{BYTES}"))
            for bits, word in zip(query, key, strict=True)
        ]
        counts.append(v.bind(sum(terms[1:], terms[0])))
    nothing = v.splat(0, BYTES, "uint8")
    for _ in range(2):
        pairs = zip_longest(counts[::2], counts[1::2], fillvalue=nothing)
        counts = [v.bind(add_pairs(low, high)) for low, high in pairs]
    return counts[0]


def _existing(counts: v.Expr, exist: int) -> v.Expr:
    if exist == BYTES:
        return counts
    exists = T.ramp(0, 1, BYTES) < v.splat(exist, BYTES, "int32")
    return T.Select(exists, counts, v.splat(ABSENT, BYTES, "uint8"))
