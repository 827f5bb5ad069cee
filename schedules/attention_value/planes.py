"""Value planes turned so that bits run along keys, and counts of set bits."""

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
from gsb_tvm.schedules.counting import count_words, dot_of


def turn(head: Head, target: Buffer, plane: Expr, word_of: Callable[[Expr, Expr], Expr]) -> None:
    """Transpose a value plane: ``target[plane, w, c]`` holds channel c of keys 32w .. 32w + 31.

    ``word_of(word, token)`` gives the packed word. A lane is a channel; every key ors its bit into
    the lanes that its word selects. Keys beyond the last stay 0.
    """

    def turn_word(x: Expr, w: Expr, keys: int) -> None:
        turned = v.local((WORD,), "uint32")
        v.store(turned, v.splat(0, WORD, "uint32"), 0, lanes=WORD)
        with T.serial(keys) as t:
            selected = v.lanes_of(word_of(x, w * WORD + t), WORD)
            before = v.bind(v.load(turned, 0, lanes=WORD))
            bit = v.splat(T.uint32(1) << T.cast(t, "uint32"), WORD)
            v.store(turned, T.Select(selected, before | bit, before), 0, lanes=WORD)
        v.store(target, v.load(turned, 0, lanes=WORD), plane, w, x * WORD, lanes=WORD)

    full, rest = divmod(head.tokens, WORD)
    with T.serial(head.channel_words) as x:
        if full:
            with T.serial(full) as w:
                turn_word(x, w, WORD)
        if rest:
            turn_word(x, T.int32(full), rest)


def row_counts(head: Head, target: Buffer, g: Expr) -> None:
    """Set bits of every row of attention plane ``g``; rows beyond the last are unspecified."""
    with T.serial(head.padded // TOKENS) as block:
        counted = count_words(
            head.profile,
            head.key_words,
            TOKENS,
            1,
            lambda k: [head.attention(g, k, block * TOKENS, lanes=TOKENS)],
        )
        total = dot_of(v.load(counted, 0, 0, lanes=TOKENS), TOKENS)
        v.store(target, total, block * TOKENS, lanes=TOKENS)


def set_bits(
    head: Head, first: int, planes: int, words: int, vector: Callable[[Expr, Expr, Expr], Expr]
) -> Expr:
    """Set bits of the planes ``first <= plane < planes``; ``vector(plane, word, token)`` reads.

    Padding tokens do not count.
    """
    total = v.local((TOKENS,), "int32")
    v.store(total, v.splat(0, TOKENS, "int32"), 0, lanes=TOKENS)

    def add(plane: Expr, token: Expr, real: Expr) -> None:
        counted = count_words(head.profile, words, TOKENS, 1, lambda k: [vector(plane, k, token)])
        found = dot_of(v.load(counted, 0, 0, lanes=TOKENS), TOKENS)
        lanes = v.lanes_of(T.cast(real, f"uint{TOKENS}"), TOKENS)
        found = T.Select(lanes, found, v.splat(0, TOKENS, "int32"))
        v.store(total, v.load(total, 0, lanes=TOKENS) + found, 0, lanes=TOKENS)

    with T.serial(first, planes) as plane:
        for_each_token_vector(head.tokens, lambda token, real: add(plane, token, real))
    return v.bind(v.reduce(v.load(total, 0, lanes=TOKENS), TOKENS, v.add))
