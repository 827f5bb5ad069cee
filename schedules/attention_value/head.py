"""What every step of the kernel knows about the head it works on."""

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import padded_tokens, words
from gsb_tvm.dialect.specs import AttentionValue, Kind
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.space import Parameters
from gsb_tvm.targets.profile import Profile

Buffer = v.Buffer
Expr = v.Expr

WORD = 32  # channels of one packed word, and lanes of everything that runs along channels
TOKENS = 16  # tokens are padded to this: lanes of everything that runs along tokens


@dataclass(frozen=True)
class Head:
    """One head: ``batch`` and ``head`` are expressions, ``named`` the kernel's arguments."""

    spec: AttentionValue
    profile: Profile
    parameters: Parameters
    named: dict[str, Buffer]
    batch: Expr
    head: Expr

    @property
    def tokens(self) -> int:
        """Queries, and keys."""
        return self.spec.v.tokens

    @property
    def padded(self) -> int:
        """Tokens a packed row of words holds."""
        return padded_tokens(self.tokens)

    @property
    def key_words(self) -> int:
        """Words of a row of attention."""
        return words(self.tokens)

    @property
    def channel_words(self) -> int:
        """Words of a value row of this head."""
        return words(self.spec.v.width)

    @property
    def masked(self) -> bool:
        """Whether values may be zero."""
        return self.spec.value_kind is Kind.MASKED

    def weight(self, g: Expr, r: Expr) -> Expr:
        """Scale of the product of attention plane ``g`` and value plane ``r``."""
        return v.rounded(self.named["p_scale"][g, self.head] * self.named["v_scale"][r, self.head])

    def attention(self, g: Expr, word: Expr, token: Expr, lanes: int = 1) -> Expr:
        """Attention words of neighbouring queries."""
        at = (g, self.batch, self.head * self.key_words + word, token)
        buffer = self.named["p_masks"]
        return v.load(buffer, *at, lanes=lanes) if lanes > 1 else buffer[at]

    def _values(self, name: str, *index: Expr, lanes: int) -> Expr:
        buffer = self.named[name]
        *planes, word, token = index
        at = (*planes, self.batch, self.head * self.channel_words + word, token)
        return v.load(buffer, *at, lanes=lanes) if lanes > 1 else buffer[at]

    def value_bits(self, word: Expr, token: Expr, lanes: int = 1) -> Expr:
        """Sign bits of one value word of neighbouring tokens; a zero has none."""
        bits = self._values("v_bits", word, token, lanes=lanes)
        return bits & self.value_nonzero(word, token, lanes) if self.masked else bits

    def value_nonzero(self, word: Expr, token: Expr, lanes: int = 1) -> Expr:
        """Nonzero bits of one value word of neighbouring tokens."""
        return self._values("v_nonzero", word, token, lanes=lanes)

    def value_mask(self, r: Expr, word: Expr, token: Expr, lanes: int = 1) -> Expr:
        """Bits of one word of value mask ``r`` of neighbouring tokens, without zeros."""
        mask = self._values("v_masks", r, word, token, lanes=lanes)
        return mask & self.value_nonzero(word, token, lanes) if self.masked else mask

    def value_mask_vector(self, r: Expr, word: Expr, token: Expr) -> Expr:
        """Words of value mask ``r``, zeros included, of 16 neighbouring tokens."""
        at = (r, self.batch, self.head * self.channel_words + word, token)
        return v.load(self.named["v_masks"], *at, lanes=TOKENS)


def for_each_token_vector(tokens: int, body: Callable[[Expr, Expr], None]) -> None:
    """Call ``body(token, real)`` for vectors of 16 tokens; ``real``: uint32, a bit per real one."""
    full, rest = divmod(tokens, TOKENS)
    every = (1 << TOKENS) - 1
    with T.serial(full + (rest > 0)) as block:
        real = T.uint32(every)
        if not full:
            # Hidden, because LLVM 22 does not end on counts of bits of which it knows 5 to 7 lanes.
            real = v.bind(v.hidden(T.uint32((1 << rest) - 1)))
        elif rest:
            real = v.bind(T.Select(block < full, real, T.uint32((1 << rest) - 1)))
        body(v.bind(block * TOKENS), real)
