"""Everything but matrix products: element by element, reductions, softmax, layer norm.

1. Stages that cost nothing to repeat, or have one reader, are inlined into their readers.
2. The leading axes that all remaining stages share, and along which each reads only its own
   coordinate, become the outer loops: a softmax or layer norm is finished row by row in cache.
3. Within a row every stage is its own loop over vectors; see :mod:`.loops`.
4. Rows are shared among threads, in one phase. Stages that share no rows get a phase each, and so
   do those of a single long row; a reduction of everything is one of its slices first.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import Any

from tvm import tirx

from gsb_tvm.schedules.float.expressions import Scope
from gsb_tvm.schedules.float.loops import Target, compute, extents, needs_axis
from gsb_tvm.schedules.float.parts import spread
from gsb_tvm.schedules.float.stages import (
    Axis,
    Stage,
    calls,
    divides,
    loads,
    nodes,
    read,
    rewritten,
)
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.schedules.vector import Buffer, local, workspace
from gsb_tvm.targets.profile import Profile

_LOCAL_ELEMENTS = 256  # 1 kB: what local() keeps on the stack
_REPEATED_NODES = 64  # what is read n times and inlined grows n-fold at every stage
_SHARED_EVALUATIONS = 1 << 14  # some microseconds: what a barrier costs is little beside them
_FUSED_NODES = 200  # beyond, what follows a product becomes loops of its own
_CHEAP_CALLS = {"if_then_else", "fabs"}


def apply(func: Any, profile: Profile) -> Any | None:
    """Scheduled form of ``func``; None where it is not a sequence of one-tensor stages."""
    stages = read(func)
    if stages is None:
        return None
    return rewritten(func, lambda buffers: emit(stages, buffers, profile.lanes))


def emit(stages: list[Stage], buffers: dict[Any, Buffer], lanes: int) -> None:
    """Write ``stages``; ``buffers`` holds the tensors that exist outside of them."""
    scope = Scope()
    for old, new in buffers.items():
        scope.bind_buffer(old, new)
    kept = inline([part for stage in stages for part in _in_two(stage)], scope, buffers)
    rows = _shared_rows(kept, scope)
    single = prod(extents(kept[-1].axes[:rows])) == 1
    if rows and not (single and sum(stage.size for stage in kept) > _SHARED_EVALUATIONS):
        with phase() as share:
            outputs = _outputs(kept, scope, buffers, rows)
            with spread(extents(kept[-1].axes[:rows]), share) as row:
                for stage, out in zip(kept, outputs, strict=True):
                    compute(stage, scope, out, row, lanes)
        return
    for stage, out in zip(kept, _outputs(kept, scope, buffers, 0), strict=True):
        with phase() as share:
            compute(stage, scope, out, [], lanes, share)


def _in_two(stage: Stage) -> list[Stage]:
    """A reduction of everything as one of each slice, which parts can share, and one of those."""
    long = [axis for axis in stage.reduce if axis.extent > 1]
    if prod(stage.shape) > 1 or len(long) < 2 or stage.size <= _SHARED_EVALUATIONS:
        return [stage]
    others = tuple(axis for axis in stage.reduce if axis is not long[0])
    shape = [*stage.shape, long[0].extent]
    slices = tirx.decl_buffer(shape, stage.buffer.dtype, f"{stage.buffer.name}_slices")
    at = Axis(tirx.Var("slice", "int64"), long[0].extent)
    return [
        replace(stage, buffer=slices, axes=(*stage.axes, long[0]), reduce=others),
        replace(stage, reduce=(at,), value=slices[(*stage.vars, at.var)]),
    ]


def _outputs(
    stages: list[Stage], scope: Scope, buffers: dict[Any, Buffer], rows: int
) -> list[Target]:
    """Where each stage is written: an argument, or scratch for one row that later stages read."""
    targets = []
    for stage in stages:
        if stage.buffer in buffers:
            targets.append(Target(buffers[stage.buffer]))
            continue
        shape = stage.shape[rows:]
        place = local if prod(shape) <= _LOCAL_ELEMENTS else workspace
        scratch = place((prod(shape),), stage.buffer.dtype)
        scope.bind_rows(stage.buffer, scratch, rows)
        targets.append(Target(scratch, shape))
    return targets


def inline(stages: list[Stage], scope: Scope, buffers: dict[Any, Buffer]) -> list[Stage]:
    """Inline what need not be stored into ``scope``; return the others that are read, in order."""
    kept = []
    sizes = inlined_sizes(stages)
    for stage in stages:
        reads = [(other, count_reads(other, stage.buffer)) for other in stages]
        readers = [other for other, count in reads if count]
        count = sum(count for _, count in reads)
        once = count == 1 and readers[0].size <= stage.size
        free = once or (_is_cheap(stage) and count * sizes[stage.buffer] <= _REPEATED_NODES)
        if stage.buffer in buffers or (readers and (stage.reduce or not free)):
            kept.append(stage)
        else:
            scope.inline(stage)
    return kept


def count_reads(stage: Stage, buffer: Buffer) -> int:
    """How often ``stage`` loads from ``buffer``."""
    return sum(found.source.same_as(buffer) for found in loads(stage.value))


def inlined_sizes(stages: Sequence[Stage]) -> dict[Any, int]:
    """Nodes of each stage's expression when all plain stages before it are inlined."""
    sizes: dict[Any, int] = {}
    for stage in stages:
        plain = [sizes.get(found.source, 0) for found in loads(stage.value)]
        sizes[stage.buffer] = 0 if stage.reduce else nodes(stage.value) + sum(plain)
    return sizes


def is_elementwise(after: Sequence[Stage], result: Buffer) -> bool:
    """Whether ``after`` is short, and reads ``result`` and itself at its own coordinates."""
    if any(stage.reduce for stage in after):
        return False
    if after and inlined_sizes(after)[after[-1].buffer] > _FUSED_NODES:
        return False
    inner = {stage.buffer for stage in after[:-1]} | {result}
    for stage in after:
        for found in loads(stage.value):
            if found.source not in inner:
                continue
            same = zip(found.indices, stage.axes, strict=False)
            if len(found.indices) != len(stage.axes) or not all(
                i.same_as(axis.var) or axis.extent == 1 for i, axis in same
            ):
                return False
    return True


def _is_cheap(stage: Stage) -> bool:
    names = {name.rpartition(".")[2] for name in calls(stage.value)}
    return not names - _CHEAP_CALLS and not divides(stage.value)


def _shared_rows(stages: list[Stage], scope: Scope) -> int:
    """Leading axes along which every stage reads other stages at its own coordinate only.

    An axis whose neighbours are contiguous for a stage stays out of them: its vectors need it.
    """
    inner = stages[:-1]
    if not inner:
        return 0
    probe = Scope(dict(scope.sources))
    for stage in inner:
        probe.bind_buffer(stage.buffer, stage.buffer)
    rows = min(len(stage.axes) for stage in stages)
    while rows > 0 and any(needs_axis(stage, probe, rows - 1) for stage in stages):
        rows -= 1
    while rows > 0 and not all(_is_local(stage, inner, probe, rows) for stage in stages):
        rows -= 1
    return max(rows, 0)


def _is_local(stage: Stage, inner: list[Stage], probe: Scope, rows: int) -> bool:
    value = probe.value(stage, stage.vars, [axis.var for axis in stage.reduce])
    for found in loads(value):
        for other in inner:
            if not found.source.same_as(other.buffer):
                continue
            if other.shape[:rows] != stage.shape[:rows]:
                return False
            pairs = zip(found.indices, stage.axes[:rows], strict=False)
            if not all(axis.extent == 1 or i.same_as(axis.var) for i, axis in pairs):
                return False
    return True
