"""Masks of softmax(q k^T) + bias: per head, blocks of query rows, never a stored score matrix.

A block of rows goes through three stages: integer scores to floats and row maxima; exponentials
and row sums; quotients, bias and masks. Masks relative to the maximum over everything come from
short lists of candidates, one of each part, in a second phase. Parts share the blocks of all heads
of all images.
"""

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.dialect.specs import AttentionPlanes
from gsb_tvm.schedules import vector as v
from gsb_tvm.schedules.attention_planes import scores, tiles
from gsb_tvm.schedules.attention_planes.candidates import Candidates, Kept, NeonCandidates
from gsb_tvm.schedules.attention_planes.masks import Masks
from gsb_tvm.schedules.attention_planes.neon_block import NeonBlock
from gsb_tvm.schedules.attention_planes.softmax import Block
from gsb_tvm.schedules.attention_planes.space import Parameters, rule, space
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.targets import Profile

__all__ = ["Parameters", "kernel", "rule", "space"]


def kernel(spec: AttentionPlanes, profile: Profile, parameters: Parameters) -> v.Expr:
    """PrimFunc of ``spec``; arguments are ``spec.inputs()`` then ``spec.outputs()``.

    Raises
    ------
    ModelError
        A ratio outside (0, 1].
    """
    _check(spec)

    def body(*tensors: v.Buffer) -> None:
        names = [name for name, _, _ in [*spec.inputs(), *spec.outputs()]]
        _phases(spec, profile, parameters, dict(zip(names, tensors, strict=True)))

    return v.prim_func([*spec.inputs(), *spec.outputs()], body)


def _check(spec: AttentionPlanes) -> None:
    for ratio in spec.ratios:
        if not 0 < ratio <= 1:
            raise ModelError(
                f"attention planes: a mask has the ratio {ratio}, expected 0 < ratio <= 1. "
                "Leave this attention in float."
            )


def _phases(
    spec: AttentionPlanes, profile: Profile, parameters: Parameters, t: scores.Buffers
) -> None:
    """The blocks of rows, then the masks of the maximum over all of them."""
    kept = Kept(spec, profile, parameters.rows) if spec.ratios else None
    with phase() as share:
        masks = Masks(spec, profile, t["masks"], v.bind(t["scalars"][2]))
        listing = NeonCandidates if profile.has_neon else Candidates
        candidates = listing(kept, share) if kept else None
        block = (NeonBlock if profile.has_neon else Block)(spec, profile, parameters, t)
        _blocks(block, share, masks, candidates)
        if candidates is not None:
            masks.clear_ratios(share)
            candidates.leave(share)
    if kept is not None:
        with phase() as share:
            kept.write(share, t["masks"])


def _blocks(block: Block, share: Share, masks: Masks, candidates: Candidates | None) -> None:
    """A part of the blocks of all heads of all images."""
    spec, t, q = block.spec, block.t, block.spec.q
    per_head = tiles.blocks(q.tokens, block.rows)
    zeros = scores.flags(spec, t)
    by_table = block.make_table()
    start, end = share.span(tiles.units(spec, block.rows))
    with T.serial(start // per_head, -(-end // per_head)) as above:
        batch, head = v.bind(above // q.groups), v.bind(above % q.groups)
        at = scores.Head(batch, head, spec.query_kind, spec.key_kind)
        own = [v.bind(unit - above * per_head) for unit in (start, end)]
        with T.serial(tirx.max(own[0], 0), tirx.min(own[1], per_head)) as i:
            first = v.bind(tirx.min(i * block.rows, q.tokens - block.rows))
            if zeros is None:
                _numerators(block, by_table, at, first)
            else:
                with T.If(zeros == 0):
                    with T.Then():
                        _numerators(block, by_table, at.as_signs(), first)
                    with T.Else():
                        _numerators(block, False, at, first)
            block.binarize(masks, candidates, at, first)


def _numerators(block: Block, by_table: bool, at: scores.Head, first: v.Expr) -> None:
    """The first two stages, by table where there is one."""
    if by_table:
        block.count(at, first)
        block.look_up()
    else:
        block.score(at, first)
        block.exponential()
