"""Softmax of a block of query rows in stages, so that the rows hide each other's latency."""

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import scores
from gsb_tvm.schedules.attention_planes.candidates import Candidates
from gsb_tvm.schedules.attention_planes.division import divide_by
from gsb_tvm.schedules.attention_planes.masks import Masks
from gsb_tvm.schedules.attention_planes.row import HALF, LOWEST, Accumulator, Piece, for_pieces
from gsb_tvm.schedules.attention_planes.space import Numerators, Parameters
from gsb_tvm.schedules.attention_planes.table import Table
from gsb_tvm.schedules.counting import reinterpret
from gsb_tvm.targets import Profile

Buffers = dict[str, v.Buffer]
LookUp = Callable[[list[v.Expr], v.Expr], v.Expr]


class Block:
    """Buffers of one block of query rows, and the stages that fill them."""

    def __init__(
        self, spec: AttentionPlanes, profile: Profile, parameters: Parameters, t: Buffers
    ) -> None:
        self.spec, self.profile, self.parameters, self.t = spec, profile, parameters, t
        self.tokens, self.rows = spec.q.tokens, parameters.rows
        self.values = v.workspace((self.rows, 32 * words(self.tokens)), "float32")
        self.maximum = v.local((self.rows,), "float32")
        self.least = v.local((self.rows,), "int32")
        self.sum = v.local((self.rows,), "float32")

    def for_pieces(self, emit: Callable[[Piece], None]) -> None:
        """Emit code for every piece of a row."""
        for_pieces(self.tokens, self.parameters.straight, emit)

    def make_table(self) -> bool:
        """Fill a table of exponentials; whether there is to be one."""
        if self.parameters.numerators is not Numerators.TABLE:
            return False
        self.table = Table(self.spec, self.t["scalars"])
        return True

    def score(self, at: scores.Head, first: v.Expr) -> None:
        """Float scores of the block and the maximum of each row."""
        with T.serial(self.rows) as r:
            query = v.bind(first + r)
            highest = Accumulator(LOWEST, v.maximum)

            def emit(piece: Piece) -> None:
                products = scores.dot(self.spec, self.profile, self.t, at, query, piece)
                x = v.bind(
                    piece.existing(
                        scores.scaled(self.spec, self.t["scalars"], products, piece.lanes), LOWEST
                    )
                )
                v.store(self.values, x, r, piece.first, lanes=piece.lanes)
                highest.take(x, piece.lanes)

            self.for_pieces(emit)
            v.put(self.maximum, highest.total(), r)

    def exponential(self) -> None:
        """exp(x - max) in place and the sum of each row; lanes beyond the last key become 0."""
        with T.serial(self.rows) as r:
            highest = v.bind(self.maximum[r])
            total = Accumulator(0.0, v.add)

            def emit(piece: Piece) -> None:
                lanes = piece.lanes
                x = v.load(self.values, r, piece.first, lanes=lanes)
                e = v.bind(v.exp(v.bind(x - v.splat(highest, lanes)), lanes))
                v.store(self.values, e, r, piece.first, lanes=lanes)
                total.take(e, lanes)

            self.for_pieces(emit)
            v.put(self.sum, total.total(), r)

    def count(self, at: scores.Head, first: v.Expr) -> None:
        """Counts of differing signs, as bits in the place of the scores, and each row's least."""
        width = self.spec.q.width
        with T.serial(self.rows) as r:
            query = v.bind(first + r)
            least = Accumulator(width, v.minimum, "int32")

            def emit(piece: Piece) -> None:
                (differing,) = scores.count(self.spec, self.profile, self.t, at, query, piece)
                counts = v.bind(piece.existing(differing, width, "int32"))
                bits = reinterpret(counts, f"float32x{piece.lanes}")
                v.store(self.values, bits, r, piece.first, lanes=piece.lanes)
                least.take(counts, piece.lanes)

            self.for_pieces(emit)
            v.put(self.least, least.total(), r)

    def look_up(self) -> None:
        """Exponentials of the counts in place, from the table, and the sum of each row."""
        table = self.table
        with T.serial(self.rows) as r:
            least = v.bind(self.least[r])
            if table.shared:
                with T.If(least == 0):
                    with T.Then():
                        self._look_up_row(table, r, least, table.look_up_first)
                    with T.Else():
                        self._look_up_row(table, r, least, table.look_up)
            else:
                self._look_up_row(table, r, least, table.look_up)

    def _look_up_row(self, table: Table, r: v.Expr, least: v.Expr, look_up: LookUp) -> None:
        row, total = table.row(least), Accumulator(0.0, v.add)

        def emit(piece: Piece) -> None:
            for half in range(piece.lanes // HALF):
                key = piece.first + half * HALF
                bits = v.load(self.values, r, key, lanes=HALF)
                found = look_up(row, v.bind(reinterpret(bits, f"int32x{HALF}")))
                part = Piece(piece.word, HALF, min(HALF, piece.keys - half * HALF))
                e = v.bind(part.existing(found, 0.0))
                v.store(self.values, e, r, key, lanes=HALF)
                total.take_half(half, e)

        self.for_pieces(emit)
        v.put(self.sum, total.total(), r)

    def binarize(
        self, masks: Masks, candidates: Candidates | None, at: scores.Head, first: v.Expr
    ) -> None:
        """Divide, add the bias, and hand every word's values to the masks and the list."""
        if candidates is not None:
            candidates.start_block()
        with T.serial(self.rows) as r:
            self._binarize_row(masks, candidates, at, r, v.bind(first + r))
        if candidates is not None:
            candidates.end_block()

    def _binarize_row(
        self,
        masks: Masks,
        candidates: Candidates | None,
        at: scores.Head,
        r: v.Expr,
        query: v.Expr,
    ) -> None:
        self.for_pieces(self._exact(masks, candidates, at, r, query))

    def _exact(
        self,
        masks: Masks,
        candidates: Candidates | None,
        at: scores.Head,
        r: v.Expr,
        query: v.Expr,
    ) -> Callable[[Piece], None]:
        """What binarizes a piece of a row."""
        spec = self.spec
        divide = divide_by(spec, self.profile, v.bind(self.sum[r]))
        bias, ahead, plane_row = self._places(at, query)

        def emit(piece: Piece) -> None:
            lanes = piece.lanes
            p = divide(v.bind(v.load(self.values, r, piece.first, lanes=lanes)), lanes)
            if spec.bias:
                p = p + v.load(self.t["bias"], bias + piece.first, lanes=lanes)
                self._fetch_bias(ahead + piece.first, lanes)
            word = v.bind((plane_row + piece.word) * masks.row + query)
            existing = v.bind(piece.existing(p, LOWEST))
            masks.take(existing, piece, word)
            if candidates is not None:
                candidates.take(existing, lanes, word)

        return emit

    def _places(self, at: scores.Head, query: v.Expr) -> tuple[v.Expr, v.Expr, v.Expr]:
        """Where a row's bias begins, the bias to fetch meanwhile, and the row's first word."""
        groups, tokens = self.spec.q.groups, self.tokens
        bias = v.bind((at.head * tokens + query) * tokens)
        last = (groups * tokens - 1) * tokens
        ahead = v.bind(tirx.min(bias + self.parameters.ahead * tokens, last))
        return bias, ahead, v.bind((at.batch * groups + at.head) * words(tokens))

    def _fetch_bias(self, start: v.Expr, lanes: int) -> None:
        """Fetch bias into the cache, where that is wanted."""
        if not self.parameters.ahead:
            return
        for line in range(0, lanes, HALF):
            v.prefetch(self.t["bias"], start + line)
