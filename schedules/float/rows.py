"""Everything but matrix products: element by element, reductions, softmax, layer norm.

1. Stages that cost nothing to repeat, or have one reader, are inlined into their readers.
2. The leading axes that all remaining stages share, and along which each reads only its own
   coordinate, become the outer loops: a softmax or layer norm is finished row by row in cache.
3. Within a row every stage is its own loop over vectors; see :mod:`.loops`.
4. Rows are shared among threads, in one phase. Stages that share no rows get a phase each, and so
   do those of a single long row; a reduction of everything is one of its slices first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from tvm import tirx

from gsb_tvm.schedules.float.expressions import Scope
from gsb_tvm.schedules.float.loops import Target, Walk, compute, extents, needs_axis, walk_of
from gsb_tvm.schedules.float.parts import spread
from gsb_tvm.schedules.float.space import Region, nearest
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
from gsb_tvm.schedules.float.tiles import CHAINS, COLUMN_VECTORS, Vectors, fitting_lanes
from gsb_tvm.schedules.sharing import phase
from gsb_tvm.schedules.vector import Buffer, local, workspace
from gsb_tvm.targets.profile import Profile

_LOCAL_ELEMENTS = 256  # 1 kB: what local() keeps on the stack
_REPEATED_NODES = 64  # what is read n times and inlined grows n-fold at every stage
_SHARED_EVALUATIONS = 1 << 14  # some microseconds: what a barrier costs is little beside them
_FUSED_NODES = 200  # beyond, what follows a product becomes loops of its own
_COUNTS = (1, 2, 4, 8, 16)  # vectors at once that are tried
_FEWEST_LANES = 4
_CHEAP_CALLS = {"if_then_else", "fabs"}


@dataclass(frozen=True)
class Parameters:
    """What may be chosen of loops over rows.

    Attributes
    ----------
    lanes
        Elements of a vector; shorter ones where an axis is shorter. More than the machine's are
        as many instructions side by side.
    chains
        Independent vectors of sums along a row; None where no row has two.
    columns
        Vectors of columns that are summed at once; None where no sum has two.
    """

    lanes: int
    chains: int | None = None
    columns: int | None = None


def match(func: Any) -> "Rows | None":
    """Plan of ``func``; None where it is not a sequence of one-tensor stages."""
    stages = read(func)
    return None if stages is None else Rows(func, stages)


@dataclass(frozen=True)
class Rows:
    """A sequence of stages."""

    func: Any
    stages: list[Stage]
    parameters = Parameters

    def rule(self, profile: Profile) -> Parameters:
        """Vectors of the machine, as many at once as cover the latency of an add."""
        return self._rule(profile.lanes)

    def space(self, profile: Profile) -> list[Parameters]:
        """Wider and narrower vectors, more and fewer at once."""
        usual = self.rule(profile).lanes
        widths = [usual, 2 * usual, usual // 2, 4 * usual]
        rules = [self._rule(lanes) for lanes in widths if lanes >= _FEWEST_LANES]
        return nearest(map(self._region, range(len(rules)), rules))

    def write(self, profile: Profile, parameters: Parameters) -> Any:
        """The scheduled PrimFunc."""
        vectors = Vectors(
            parameters.lanes, parameters.chains or CHAINS, parameters.columns or COLUMN_VECTORS
        )
        return rewritten(self.func, lambda buffers: emit(self.stages, buffers, vectors))

    def _region(self, distance: int, rule: Parameters) -> Region[Parameters]:
        """What may be changed where vectors are as wide as those of ``rule``."""
        most = _LOCAL_ELEMENTS // rule.lanes
        limits = {"chains": self._most(Walk.ALONG, rule.lanes)}
        limits["columns"] = self._most(Walk.ACROSS, rule.lanes)
        options = []
        for name, limit in limits.items():
            own = getattr(rule, name)
            counts = [count for count in _COUNTS if count <= min(limit, most) and count != own]
            options.append([{name: count} for count in (own, *counts) if limit > 1])
        return Region(distance, rule, [each for each in options if each])

    def _rule(self, lanes: int) -> Parameters:
        """By rule, with vectors no wider than they can be."""
        lanes = max(fitting_lanes(count, lanes) for _, count in self._walks)
        chains, columns = self._most(Walk.ALONG, lanes), self._most(Walk.ACROSS, lanes)
        return Parameters(
            lanes,
            min(CHAINS, chains) if chains > 1 else None,
            min(COLUMN_VECTORS, columns) if columns > 1 else None,
        )

    def _most(self, walk: Walk, lanes: int) -> int:
        """Vectors of the longest row of sums, or of the most columns; 1 where none are summed."""
        counts = [count for each, count in self._walks if each is walk]
        if walk is Walk.ALONG:
            return max([1, *[count // fitting_lanes(count, lanes) for count in counts]])
        return max([1, *[-(-count // fitting_lanes(count, lanes)) for count in counts]])

    @cached_property
    def _walks(self) -> list[tuple[Walk, int]]:
        """How each stage that is kept is walked."""
        scope, params = Scope(), {param: param for param in self.func.params}
        for param in params:
            scope.bind_buffer(param, param)
        kept, rows = _layout(self.stages, scope, params)
        for stage in kept:
            scope.bind_buffer(stage.buffer, stage.buffer)
        return [walk_of(stage, scope, rows) for stage in kept]


def emit(stages: list[Stage], buffers: dict[Any, Buffer], vectors: Vectors) -> None:
    """Write ``stages``; ``buffers`` holds the tensors that exist outside of them."""
    scope = Scope()
    for old, new in buffers.items():
        scope.bind_buffer(old, new)
    kept, rows = _layout(stages, scope, buffers)
    if rows:
        with phase() as share:
            outputs = _outputs(kept, scope, buffers, rows)
            with spread(extents(kept[-1].axes[:rows]), share) as row:
                for stage, out in zip(kept, outputs, strict=True):
                    compute(stage, scope, out, row, vectors)
        return
    for stage, out in zip(kept, _outputs(kept, scope, buffers, 0), strict=True):
        with phase() as share:
            compute(stage, scope, out, [], vectors, share)


def _layout(
    stages: list[Stage], scope: Scope, buffers: dict[Any, Buffer]
) -> tuple[list[Stage], int]:
    """Stages that are kept, and how many axes are their rows; none where each is done by itself."""
    kept = inline([part for stage in stages for part in _in_two(stage)], scope, buffers)
    rows = _shared_rows(kept, scope)
    single = prod(extents(kept[-1].axes[:rows])) == 1
    is_shared = single and sum(stage.size for stage in kept) > _SHARED_EVALUATIONS
    return kept, 0 if is_shared else rows


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
