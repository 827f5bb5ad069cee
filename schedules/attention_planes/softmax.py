"""Softmax of a block of query rows in stages, so that the rows hide each other's latency."""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import words
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import scores, tiles
from gsb_tvm.schedules.attention_planes.division import divide_by
from gsb_tvm.schedules.attention_planes.masks import Masks
from gsb_tvm.schedules.attention_planes.row import LOWEST, Accumulator, Piece, for_pieces
from gsb_tvm.targets import Profile

Buffers = dict[str, v.Buffer]


class Block:
    """Buffers of one block of query rows, and the stages that fill them."""

    def __init__(self, spec: AttentionPlanes, profile: Profile, t: Buffers) -> None:
        self.spec, self.profile, self.t = spec, profile, t
        self.tokens = spec.q.tokens
        self.rows = tiles.query_rows(self.tokens)
        self.values = v.workspace((self.rows, 32 * words(self.tokens)), "float32")
        self.maximum = v.local((self.rows,), "float32")
        self.sum = v.local((self.rows,), "float32")

    def score(self, at: scores.Head, first: v.Expr) -> None:
        """Float scores of the block and the maximum of each row."""
        with T.serial(self.rows) as r:
            query = v.bind(first + r)
            highest = Accumulator(LOWEST, v.maximum)

            def emit(piece: Piece) -> None:
                products = scores.dot(self.spec, self.profile, self.t, at, query, piece)
                x = v.bind(piece.existing(scores.scaled(self.spec, products, piece.lanes)))
                v.store(self.values, x, r, piece.first, lanes=piece.lanes)
                highest.take(x, piece.lanes)

            for_pieces(self.tokens, emit)
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

            for_pieces(self.tokens, emit)
            v.put(self.sum, total.total(), r)

    def binarize(self, masks: Masks, at: scores.Head, first: v.Expr) -> None:
        """Divide, add the bias, and hand every word's values to the masks."""
        spec, tokens = self.spec, self.tokens
        per_row = words(tokens)
        masks.start_block()
        with T.serial(self.rows) as r:
            query = v.bind(first + r)
            divide = divide_by(spec, self.profile, v.bind(self.sum[r]))
            bias = v.bind((at.head * tokens + query) * tokens)
            plane_row = v.bind((at.batch * spec.q.groups + at.head) * per_row)

            def emit(piece: Piece) -> None:
                lanes = piece.lanes
                p = divide(v.bind(v.load(self.values, r, piece.first, lanes=lanes)), lanes)
                if spec.bias:
                    p = p + v.load(self.t["bias"], bias + piece.first, lanes=lanes)
                word = v.bind((plane_row + piece.word) * masks.row + query)
                masks.take(v.bind(piece.existing(p)), piece, word)

            for_pieces(tokens, emit)
        masks.end_block()
