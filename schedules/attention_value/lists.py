"""Products of nearly empty masks: one add per set bit.

A set bit (key k, channel c) of a value mask adds to channel c of every query whose base row holds
k: lanes are queries, sums stand channel by channel and are transposed once. A set bit (query i,
key k) of an attention mask adds the whole superposed value row k to row i: lanes are channels.
"""

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.head import (
    TOKENS,
    WORD,
    Buffer,
    Expr,
    Head,
    for_each_token_vector,
)

UNROLLED_VECTORS = 16  # of tokens: above, a loop


def lowest(word: Expr) -> Expr:
    """Index of the lowest set bit of a word that is not 0, int32."""
    return T.cast(
        tirx.call_llvm_pure_intrin("uint32", "llvm.cttz", word, tirx.const(True, "bool")), "int32"
    )


def for_each_bit(word: Expr, body: Callable[[Expr], None]) -> None:
    """Call ``body(index)`` for the set bits of a uint32, lowest first."""
    pending = v.local((1,), "uint32")
    v.put(pending, word, 0)
    with T.While(pending[0] != T.uint32(0)):
        index = v.bind(lowest(pending[0]))
        v.put(pending, pending[0] & (pending[0] - T.uint32(1)), 0)
        body(index)


def for_each_entry(
    head: Head,
    vector: Callable[[Expr], Expr],
    word_at: Callable[[Expr], Expr],
    body: Callable[[Expr, Expr], None],
) -> None:
    """Call ``body(token, bit)`` for the set bits of one word of every token.

    ``vector(token)`` reads 16 tokens to find those with any bit, ``word_at(token)`` one of them.
    """

    def scan(token: Expr, valid: int) -> None:
        some = vector(token) != v.splat(0, TOKENS, "uint32")
        found = T.cast(v.bits_of(some, TOKENS), "uint32") & T.uint32((1 << valid) - 1)

        def one_token(lane: Expr) -> None:
            at = v.bind(token + lane)
            for_each_bit(word_at(at), lambda bit: body(at, bit))

        for_each_bit(found, one_token)

    for_each_token_vector(head.tokens, scan)


def add_value_entries(head: Head, word: Expr, by_channel: Buffer) -> None:
    """Add base attention times every value mask to ``by_channel[channel, query]``.

    Only the 32 channels of ``word``: their sums stay in the first cache.
    """
    vectors = head.padded // TOKENS

    def add(r: Expr, key: Expr, bit: Expr) -> None:
        weight = v.bind(head.weight(T.int32(0), r + 1))
        positive = (head.value_bits(word, key) >> T.cast(bit, "uint32")) & T.uint32(1)
        value = v.bind(T.Select(positive != T.uint32(0), weight, -weight))
        tested = v.bind(T.uint32(1) << T.cast(key % WORD, "uint32"))

        def add_vector(token: Expr) -> None:
            rows = head.attention(T.int32(0), key // WORD, token, lanes=TOKENS)
            holds = (rows & v.splat(tested, TOKENS)) != v.splat(0, TOKENS, "uint32")
            before = v.bind(v.load(by_channel, bit, token, lanes=TOKENS))
            after = T.Select(holds, before + v.splat(value, TOKENS), before)
            v.store(by_channel, after, bit, token, lanes=TOKENS)

        if vectors <= UNROLLED_VECTORS:
            for block in range(vectors):
                add_vector(T.int32(block * TOKENS))
        else:
            with T.serial(vectors) as block:
                add_vector(block * TOKENS)

    with T.serial(head.spec.v_groups - 1) as r:
        for_each_entry(
            head,
            lambda token: head.value_mask_vector(r, word, token),
            lambda token: head.value_mask(r, word, token),
            lambda token, bit: add(r, token, bit),
        )


def add_attention_entries(head: Head, sums: Buffer) -> None:
    """Add attention masks but the base, times all values, to ``sums[query, channel]``."""
    zero = v.splat(0.0, WORD)

    def add_to(query: Expr, x: Expr, value: Expr) -> None:
        before = v.load(sums, query, x * WORD, lanes=WORD)
        v.store(sums, before + value, query, x * WORD, lanes=WORD)

    def add_masked(g: Expr, r: Expr, query: Expr, x: Expr, key: Expr) -> None:
        mask = v.bind(head.value_mask(r, x, key))
        with T.If(mask != T.uint32(0)), T.Then():
            weight = v.bind(head.weight(g, r + 1))
            positive = v.lanes_of(mask & head.value_bits(x, key), WORD)
            other = T.Select(v.lanes_of(mask, WORD), v.splat(-weight, WORD), zero)
            add_to(query, x, T.Select(positive, v.splat(weight, WORD), other))

    def add(g: Expr, query: Expr, key: Expr) -> None:
        weight = v.bind(head.weight(g, T.int32(0)))
        with T.serial(head.channel_words) as x:
            positive = v.lanes_of(head.value_bits(x, key), WORD)
            value = T.Select(positive, v.splat(weight, WORD), v.splat(-weight, WORD))
            if head.masked:
                value = T.Select(v.lanes_of(head.value_nonzero(x, key), WORD), value, zero)
            add_to(query, x, value)
            if head.spec.v_groups > 1:
                with T.serial(head.spec.v_groups - 1) as r:
                    add_masked(g, r, query, x, key)

    with T.serial(1, head.spec.p_groups) as g, T.serial(head.key_words) as word:
        for_each_entry(
            head,
            lambda token: head.attention(g, word, token, lanes=TOKENS),
            lambda token: head.attention(g, word, token),
            lambda token, bit: add(g, token, v.bind(word * WORD + bit)),
        )
