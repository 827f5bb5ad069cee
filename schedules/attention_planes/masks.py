"""Packed masks of a float row: the base mask, and empty ones for those of the maximum."""

from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import WORD_BITS, product
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes.row import HALF, Piece
from gsb_tvm.schedules.packing import word_of
from gsb_tvm.schedules.sharing import Share
from gsb_tvm.targets import Profile


def flat(spec: AttentionPlanes, masks: v.Buffer) -> Any:
    """``masks`` as one row of words."""
    count = (1 + len(spec.ratios)) * product(spec.rows.packed_shape)
    return T.decl_buffer((count,), "uint32", data=masks.data)


class Masks:
    """Writes words of the masks; a word is given by its place in a plane."""

    def __init__(
        self, spec: AttentionPlanes, profile: Profile, masks: v.Buffer, bound: v.Expr
    ) -> None:
        self.spec, self.profile, self.bound = spec, profile, bound
        self.plane = product(spec.rows.packed_shape)
        self.row = spec.rows.packed_shape[2]
        self.flat = flat(spec, masks)

    def take(self, p: v.Expr, piece: Piece, word: v.Expr) -> None:
        """Write the base mask of one word's values."""
        lanes, spec = piece.lanes, self.spec
        bound = v.splat(self.bound, lanes)
        mask = p > bound if spec.strict else p >= bound
        if lanes == WORD_BITS:
            v.put(self.flat, word_of(mask, self.profile), word)
        else:
            v.put(self.flat, T.cast(v.bits_of(mask, lanes), "uint32"), word)

    def clear_ratios(self, share: Share) -> None:
        """Set a part of the other masks to 0; whose words they become does not matter."""
        start, end = share.span(len(self.spec.ratios) * self.plane // HALF)
        with T.serial(start, end) as i:
            v.store(self.flat, v.splat(0, HALF, "uint32"), self.plane + i * HALF, lanes=HALF)
