"""What a block of threads knows of its head: where its planes lie, its weights."""

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import TOKEN_ALIGN, WORD_BITS, padded_tokens, words
from gsb_tvm.dialect.specs import AttentionValue
from gsb_tvm.schedules.vector import Buffer, Expr, bind, load


@dataclass(frozen=True)
class Head:
    """The head of a block; ``batch`` and ``head`` are expressions, ``named`` the arguments.

    ``first_word`` is the first of the words of channels that the block computes, ``unit`` the
    number of the head in all images.
    """

    spec: AttentionValue
    named: dict[str, Buffer]
    unit: Expr
    batch: Expr
    head: Expr
    first_word: Expr

    @property
    def padded(self) -> int:
        """Tokens that a packed row of words holds."""
        return padded_tokens(self.spec.v.tokens)

    @property
    def tiles(self) -> int:
        """Rows of 16 queries."""
        return self.padded // TOKEN_ALIGN

    @property
    def key_words(self) -> int:
        """Words of a row of attention."""
        return words(self.spec.v.tokens)

    def weight(self, g: int, r: int) -> Expr:
        """Of the product of attention plane g and value plane r."""
        p, v = self.named["p_scale"], self.named["v_scale"]
        return bind(p[g, self.head] * v[r, self.head])

    def zeros(self) -> Expr | None:
        """Whether values may be zero; None where they never are."""
        return bind(self.named["v_zeros"][0] != 0) if "v_zeros" in self.named else None

    def attention(self, g: int, word: Expr, query: Expr, lanes: int = 1) -> Expr:
        """A word of keys of neighbouring queries."""
        at = (g, self.batch, self.head * self.key_words + word, query)
        return load(self.named["p_masks"], *at, lanes=lanes)

    def value(self, name: str, word: Expr, token: Expr, *plane: Expr) -> Expr:
        """A word of channels of a token, by its number in the block; 0 where there is no token."""
        row = self.head * words(self.spec.v.width) + (self.first_word + word)
        found = self.named[name][(*plane, self.batch, row, token)]
        if self.padded % WORD_BITS == 0:
            return found
        return T.if_then_else(token < self.padded, found, T.uint32(0))

    def real_bits(self, word: Expr) -> Expr:
        """Bits of a word of channels that are channels."""
        rest = self.spec.v.width % WORD_BITS
        every = T.uint32(0xFFFFFFFF)
        if not rest:
            return every
        last = words(self.spec.v.width) - 1
        return T.Select(self.first_word + word == last, T.uint32((1 << rest) - 1), every)
