"""Products of nearly empty masks: one add per set bit.

A set bit (key k, channel c) of a value mask adds to channel c of every query whose base row holds
k: lanes are queries, sums stand channel by channel and are transposed once. A set bit (query i,
key k) of an attention mask adds the whole superposed value row k to row i: lanes are channels.
"""

from collections.abc import Callable

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
from gsb_tvm.schedules.packing import lanes_of
from gsb_tvm.schedules.set_bits import for_each_bit


def for_each_entry(
    head: Head,
    words: int,
    vector: Callable[[Expr, Expr], Expr],
    word_at: Callable[[Expr, Expr], Expr],
    body: Callable[[Expr, Expr, Expr], None],
) -> None:
    """Call ``body(word, token, bit)`` for the set bits of a plane.

    ``vector(word, token)`` reads 16 tokens, ``word_at(word, token)`` one of them. Vectors with any
    bit are listed first, without a branch that data decide: each is written to the list, and the
    list grows only where there was a bit.
    """
    vectors = head.padded // TOKENS
    masks = v.workspace((words * vectors + 1,), "uint32")
    places = v.workspace((words * vectors + 1,), "int32")
    count = v.local((1,), "int32")
    v.put(count, T.int32(0), 0)

    def collect(word: Expr, token: Expr, real: Expr) -> None:
        some = vector(word, token) != v.splat(0, TOKENS, "uint32")
        mask = v.bind(T.cast(v.bits_of(some, TOKENS), "uint32") & real)
        end = v.bind(count[0])
        v.put(masks, mask, end)
        v.put(places, word * head.padded + token, end)
        v.put(count, end + T.cast(mask != T.uint32(0), "int32"), 0)

    with T.serial(words) as word:
        for_each_token_vector(head.tokens, lambda token, real: collect(word, token, real))
    with T.serial(count[0]) as entry:
        word = v.bind(places[entry] // head.padded)
        start = v.bind(places[entry] % head.padded)

        def one_token(lane: Expr) -> None:
            token = v.bind(start + lane)
            for_each_bit(word_at(word, token), lambda bit: body(word, token, bit))

        for_each_bit(masks[entry], one_token)


def add_value_entries(head: Head, word: Expr, by_channel: Buffer) -> None:
    """Add base attention times every value mask to ``by_channel[channel, query]``.

    Only the 32 channels of ``word``: their sums stay in the first cache.
    """
    vectors, straight = head.padded // TOKENS, head.parameters.straight
    assert straight

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

        steps = vectors // straight if vectors > straight else 0
        if steps:
            with T.serial(steps) as step:
                for i in range(straight):
                    add_vector((step * straight + i) * TOKENS)
        for block in range(steps * straight, vectors):
            add_vector(T.int32(block * TOKENS))

    with T.serial(head.spec.v_groups - 1) as r:
        for_each_entry(
            head,
            1,
            lambda _, token: head.value_mask_vector(r, word, token),
            lambda _, token: head.value_mask(r, word, token),
            lambda _, token, bit: add(r, token, bit),
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
            positive = lanes_of(mask & head.value_bits(x, key), head.profile)
            other = T.Select(lanes_of(mask, head.profile), v.splat(-weight, WORD), zero)
            add_to(query, x, T.Select(positive, v.splat(weight, WORD), other))

    def add(g: Expr, query: Expr, key: Expr) -> None:
        weight = v.bind(head.weight(g, T.int32(0)))
        with T.serial(head.channel_words) as x:
            positive = lanes_of(head.value_bits(x, key), head.profile)
            value = T.Select(positive, v.splat(weight, WORD), v.splat(-weight, WORD))
            if head.masked:
                value = T.Select(lanes_of(head.value_nonzero(x, key), head.profile), value, zero)
            add_to(query, x, value)
            if head.spec.v_groups > 1:
                with T.serial(head.spec.v_groups - 1) as r:
                    add_masked(g, r, query, x, key)

    with T.serial(1, head.spec.p_groups) as g:
        for_each_entry(
            head,
            head.key_words,
            lambda word, token: head.attention(g, word, token, lanes=TOKENS),
            lambda word, token: head.attention(g, word, token),
            lambda word, token, bit: add(g, token, v.bind(word * WORD + bit)),
        )
