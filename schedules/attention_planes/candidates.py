"""Words that may belong to a mask of the maximum over everything, listed until it is known.

The maximum is known only after the last row. Until then each word of 32 values is written to a list
whose end moves on only where a value exceeds the smallest ratio of the maximum so far: no branch,
and most words are overwritten by the next. With 0 < ratio <= 1 no value is lost: if the final
maximum is not negative its thresholds only grow, and ``fl(ratio * max)`` is monotonic in both
factors; if it is negative nothing exceeds ``ratio * max >= max``. So it does not matter either
whose maximum it was: every part keeps a list of its own, with the maximum of its own rows.

Rows that two blocks have in common may be listed by two parts, which then write the same words.
"""

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, product
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import tiles
from gsb_tvm.schedules.attention_planes.byte_vectors import reduced
from gsb_tvm.schedules.attention_planes.masks import flat
from gsb_tvm.schedules.attention_planes.row import LOWEST, Accumulator
from gsb_tvm.schedules.packing import word_of
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.schedules.slots import Slots
from gsb_tvm.targets import Profile


def constant(value: float) -> v.Expr:
    """float32 constant."""
    return tirx.const(float(np.float32(value)), "float32")


class Kept:
    """The lists of all parts, each in the stretch of its units; made outside the phases.

    A unit is a block of ``rows`` query rows.
    """

    def __init__(self, spec: AttentionPlanes, profile: Profile, rows: int) -> None:
        self.spec, self.profile, self.rows = spec, profile, rows
        words = tiles.kept_words(spec, rows)
        self.values = v.workspace((words, WORD_BITS), "float32")
        self.places = v.workspace((words,), "int32")
        self.ends = Slots("int32")
        self.highest = Slots("float32")

    def start(self, share: Share) -> v.Expr:
        """Where the part's list begins; it ends before the next part's begins."""
        first, _ = share.span(tiles.units(self.spec, self.rows))
        return v.bind(first * tiles.unit_words(self.spec, self.rows) + share.part)

    def write(self, share: Share, masks: v.Buffer) -> None:
        """Write the words of the part's list to the masks, which are 0 elsewhere."""
        spec, words = self.spec, flat(self.spec, masks)
        plane = product(spec.rows.packed_shape)
        highest = self.highest.combined(share, v.maximum)
        thresholds = [v.bind(constant(ratio) * highest) for ratio in spec.ratios]
        with T.serial(self.start(share), self.ends.own(share)) as n:
            values = v.bind(v.load(self.values, n, 0, lanes=WORD_BITS))
            place = v.bind(self.places[n])
            for r, threshold in enumerate(thresholds):
                bits = word_of(values > v.splat(threshold, WORD_BITS), self.profile)
                v.put(words, bits, (1 + r) * plane + place)


class Candidates:
    """The list of one part while it grows."""

    def __init__(self, kept: Kept, share: Share) -> None:
        self.kept = kept
        self.smallest = constant(min(kept.spec.ratios))
        self.end = v.local((1,), "int32")
        self.highest = v.local((1,), "float32")
        v.put(self.end, kept.start(share), 0)
        v.put(self.highest, constant(LOWEST), 0)

    def start_block(self) -> None:
        """Before a block of rows."""
        self.threshold = v.bind(self.smallest * self.highest[0])
        self.block = Accumulator(LOWEST, v.maximum)

    def take(self, p: v.Expr, lanes: int, word: v.Expr) -> None:
        """List one word's values, if one of them is large enough; ``word``: its place in a mask."""
        at = v.bind(self.end[0])
        self._keep(p, lanes, at, word)
        above = v.bits_of(p > v.splat(self.threshold, lanes), lanes)
        v.put(self.end, at + T.cast(above != tirx.const(0, f"uint{lanes}"), "int32"), 0)
        self.block.take(p, lanes)

    def _keep(self, p: v.Expr, lanes: int, at: v.Expr, word: v.Expr) -> None:
        v.store(self.kept.values, p, at, 0, lanes=lanes)
        if lanes < WORD_BITS:
            rest = WORD_BITS - lanes
            v.store(self.kept.values, v.splat(LOWEST, rest), at, lanes, lanes=rest)
        v.put(self.kept.places, word, at)

    def end_block(self) -> None:
        """After a block of rows."""
        v.put(self.highest, v.maximum(self.block.total(), self.highest[0]), 0)

    def leave(self, share: Share) -> None:
        """Say where the list ends, and what the part's maximum is."""
        self.kept.ends.put(share, self.end[0])
        self.kept.highest.put(share, self.highest[0])


class NeonCandidates(Candidates):
    """The same for few words: one is only kept if its maximum, an instruction or two, is above."""

    def start_block(self) -> None:
        """Before a block of rows."""
        self.threshold = v.bind(self.smallest * self.highest[0])
        self.above = v.local((1,), "float32")
        v.put(self.above, self.highest[0], 0)

    def take(self, p: v.Expr, lanes: int, word: v.Expr) -> None:
        """List one word's values, if one of them is large enough; ``word``: its place in a mask."""
        largest = v.bind(reduced("fmax", p))
        v.put(self.above, v.maximum(largest, self.above[0]), 0)
        with T.If(largest > self.threshold), T.Then():
            at = v.bind(self.end[0])
            self._keep(p, lanes, at, word)
            v.put(self.end, at + 1, 0)

    def end_block(self) -> None:
        """After a block of rows."""
        v.put(self.highest, self.above[0], 0)
