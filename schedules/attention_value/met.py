"""How many positive values each row of the base attention meets, in bytes (Neon).

Popcounts of a row's words and the channels', two rows and 32 channels at a time, added in bytes.
"""

from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules import neon
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_value.head import WORD, Buffer, Expr, Head
from gsb_tvm.schedules.counting import reinterpret

ROWS = 2  # of a tile
QUAD = 4  # words of a vector
BYTES = 16
VECTORS = WORD // QUAD


def count_met(head: Head, positive: Buffer, met: Buffer) -> None:
    """Fill ``met[row, channel]``, uint8, of at least the rows there are, 255 tokens at most.

    ``positive`` is the turned plane. Of a last word with one or two bytes of keys these bytes alone
    are counted.
    """
    rest = -(-(head.tokens % WORD) // 8)
    tail = rest if rest <= 2 else 0
    whole = head.key_words - (tail > 0)
    tails = v.workspace((2, head.spec.v.width), "uint8")
    for byte in range(tail):
        with T.serial(head.channel_words) as x:
            word = v.load(positive, 0, whole, x * WORD, lanes=WORD)
            shifted = word >> v.splat(8 * byte, WORD, "uint32")
            v.store(tails, T.cast(shifted, f"uint8x{WORD}"), byte, x * WORD, lanes=WORD)

    def finish(row: Expr, first: Expr, sums: list[Expr]) -> None:
        while len(sums) > WORD // BYTES:
            pairs = zip(sums[::2], sums[1::2], strict=True)
            sums = [v.bind(neon.add_pairs(low, high)) for low, high in pairs]
        for byte in range(tail):
            word = head.attention(T.int32(0), T.int32(whole), row)
            keys = v.bind(v.splat(T.cast(word >> T.uint32(8 * byte), "uint8"), BYTES))
            for half in range(WORD // BYTES):
                column = v.load(tails, byte, first + half * BYTES, lanes=BYTES)
                sums[half] = v.bind(sums[half] + v.popcount(keys & column))
        for half, counted in enumerate(sums):
            v.store(met, counted, row, first + half * BYTES, lanes=BYTES)

    with T.serial(head.channel_words) as x, T.serial(-(-head.tokens // ROWS)) as i:
        row, first = v.bind(i * ROWS), v.bind(x * WORD)
        for m, sums in enumerate(_counted(head, positive, row, first, whole)):
            finish(row + m, first, sums)


def _counted(head: Head, positive: Buffer, row: Expr, first: Expr, words: int) -> list[list[Expr]]:
    """Eight vectors of bytes for each row: of 32 channels the bytes of their words, summed."""
    cells = [(m, i) for m in range(ROWS) for i in range(VECTORS)]
    counts = {cell: v.local((BYTES,), "uint8") for cell in cells}
    for cell in cells:
        v.store(counts[cell], v.splat(0, BYTES, "uint8"), 0, lanes=BYTES)

    def count(word: Expr) -> None:
        columns = [
            v.bind(v.load(positive, 0, word, first + i * QUAD, lanes=QUAD)) for i in range(VECTORS)
        ]
        for m in range(ROWS):
            keys = v.bind(v.splat(head.attention(T.int32(0), word, row + m), QUAD))
            for i, column in enumerate(columns):
                counted = v.popcount(reinterpret(keys & column, f"uint8x{BYTES}"))
                before = v.load(counts[m, i], 0, lanes=BYTES)
                v.store(counts[m, i], before + counted, 0, lanes=BYTES)

    unrolled = head.parameters.met_words
    assert unrolled
    # A loop of a length that LLVM does not know: unrolled, it keeps values on the stack.
    steps, rest = divmod(words, unrolled)
    if steps:
        with T.serial(T.cast(v.hidden(T.uint32(steps)), "int32")) as step:
            for i in range(unrolled):
                count(v.bind(step * unrolled + i))
    for word in range(words - rest, words):
        count(T.int32(word))
    return [
        [v.bind(v.load(counts[m, i], 0, lanes=BYTES)) for i in range(VECTORS)] for m in range(ROWS)
    ]
