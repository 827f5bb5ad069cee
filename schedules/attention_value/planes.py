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
from gsb_tvm.schedules.attention_value.squares import QUAD, transposed
from gsb_tvm.schedules.counting import count_words, dot_of

Words = Callable[..., Expr]  # (word, token, lanes=1) -> packed words of neighbouring tokens


def turn(head: Head, target: Buffer, plane: Expr, word_of: Words) -> None:
    """Transpose a value plane: ``target[plane, w, c]`` holds channel c of keys 32w .. 32w + 31.

    Keys beyond the last stay 0.
    """
    full, rest = divmod(head.tokens, WORD)
    turn_word = _turn_square if head.profile.has_neon else _turn_lanes
    with T.serial(head.channel_words) as x:
        if full:
            with T.serial(full) as w:
                turn_word(head, target, plane, word_of, x, w, WORD)
        if rest:
            turn_word(head, target, plane, word_of, x, T.int32(full), rest)


def _turn_square(
    head: Head, target: Buffer, plane: Expr, word_of: Words, x: Expr, w: Expr, keys: int
) -> None:
    """32 keys of 32 channels as a square of bits."""
    read = [v.bind(word_of(x, w * WORD + i, lanes=QUAD)) for i in range(0, keys, QUAD)]
    rows = read + [v.splat(0, QUAD, "uint32")] * (WORD // QUAD - len(read))
    real = v.splat((1 << keys) - 1, QUAD, "uint32")
    for i, channels in enumerate(transposed(rows)):
        turned = channels if keys == WORD else channels & real
        v.store(target, turned, plane, w, x * WORD + i * QUAD, lanes=QUAD)


def _turn_lanes(
    head: Head, target: Buffer, plane: Expr, word_of: Words, x: Expr, w: Expr, keys: int
) -> None:
    """A lane is a channel; every key ors its bit into the lanes that its word selects."""
    turned = v.local((WORD,), "uint32")
    v.store(turned, v.splat(0, WORD, "uint32"), 0, lanes=WORD)
    with T.serial(keys) as t:
        selected = v.lanes_of(word_of(x, w * WORD + t), WORD)
        before = v.bind(v.load(turned, 0, lanes=WORD))
        bit = v.splat(T.uint32(1) << T.cast(t, "uint32"), WORD)
        v.store(turned, T.Select(selected, before | bit, before), 0, lanes=WORD)
    v.store(target, v.load(turned, 0, lanes=WORD), plane, w, x * WORD, lanes=WORD)


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
