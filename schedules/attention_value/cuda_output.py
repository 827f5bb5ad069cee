"""What becomes of a head's products: floats, or words of a plane."""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.specs import Kind
from gsb_tvm.schedules.attention_value.cuda_head import Head
from gsb_tvm.schedules.cuda.grid import registers
from gsb_tvm.schedules.vector import Buffer, Expr, bind, put, store


class Output:
    """Writes queries of a head, and gathers zeros among them in ``missing``, of each thread."""

    def __init__(self, head: Head) -> None:
        self._head, self._compare = head, head.spec.compare
        self.masked = self._compare is not None and self._compare.kind is Kind.MASKED
        self.missing: Buffer = registers(1, "uint32")
        put(self.missing, T.uint32(0), 0)

    @property
    def packs(self) -> bool:
        """Whether bits are written."""
        return self._compare is not None

    def shift(self, channel: Expr) -> Expr | None:
        """What is added to a channel of the block before it is compared; None is nothing."""
        if not (self._head.spec.shift and self.packs):
            return None
        width = self._head.spec.v.width
        at = T.min(self._head.first_word * WORD_BITS + channel, width - 1)
        return bind(self._head.named["shift"][self._head.head * width + at])

    def bit(self, value: Expr) -> Expr:
        """Whether a shifted value is above the bound."""
        assert self._compare is not None
        bound = T.float32(self._compare.bound)
        return value > bound if self._compare.strict else value >= bound

    def write_word(
        self, query: Expr, word: Expr, bits: Expr, below: Expr | None, mine: Expr
    ) -> None:
        """Write a word of channels of the block; of threads with the same those that are ``mine``.

        ``below`` says where values are below 0, if zeros are to be told apart; NaN is one.
        """
        head, real = self._head, self._head.real_bits(word)
        at = (head.batch, head.head * words(head.spec.v.width) + head.first_word + word, query)
        with T.If(T.And(mine, query < head.spec.v.tokens)), T.Then():
            put(self._head.named["out_bits"], bits & real, *at)
            if below is not None:
                nonzero = bind(bits | below)  # a masked sign is strict at 0: bits are those above
                put(head.named["out_nonzero"], nonzero & real, *at)
                put(self.missing, self.missing[0] | (~nonzero & real), 0)

    def write_floats(self, query: Expr, channel: Expr, values: list[Expr]) -> None:
        """Write neighbouring channels of the block from ``channel`` on, those that there are."""
        width = self._head.spec.v.width
        lanes = len(values) if width % len(values) == 0 else 1
        first = bind(self._head.first_word * WORD_BITS + channel)
        for i in range(0, len(values), lanes):
            some = values[i : i + lanes]
            y = T.Shuffle(some, list(range(lanes))) if lanes > 1 else some[0]
            at = (self._head.batch, query, self._head.head * width + first + i)
            exists = T.And(query < self._head.spec.v.tokens, first + i < width)
            with T.If(exists), T.Then():
                store(self._head.named["o"], y, *at, lanes=lanes)
