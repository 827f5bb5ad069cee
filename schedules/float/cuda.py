"""Float operators on CUDA: TVM's general schedules for GPUs, of which the first that fits is taken.

None multiplies in fewer digits: only inputs of 16 bits or fewer go to tensor cores.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

from tvm import DataType, s_tir, tirx
from tvm.ir import IRModule
from tvm.ir.transform import Sequential
from tvm.s_tir import dlight
from tvm.target import Target
from tvm_ffi import structural_walk

from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES
from gsb_tvm.targets.profile import Profile

THREADS = 256
"""Of a block whose threads share nothing: a quarter of the most, so that small tensors are more
blocks."""

MOST_THREADS = 1024
"""Of a block, on every architecture."""

SHORT = 32
"""Terms of a sum below which one thread adds them up, not a block."""


def schedule(func: Any, profile: Profile) -> Any:
    """``func``, loop nests that no thread is bound to, as launches with the same arguments."""
    for rule in _rules(func):
        threads = THREADS if isinstance(rule, dlight.gpu.Fallback) else MOST_THREADS
        with _target(profile, threads) as target:
            found = _applied(rule, func, target)
        if found is not None:
            return found
    raise AssertionError(f"no schedule for CUDA: {func}")


def _target(profile: Profile, threads: int) -> Any:
    """The GPU as rules ask for it; blocks have ``threads`` at most."""
    assert profile.gpu is not None
    return Target(
        {
            "kind": profile.kind,
            "arch": profile.gpu.arch,
            "max_num_threads": threads,
            "max_shared_memory_per_block": STATIC_SHARED_BYTES,
        }
    )


def _rules(func: Any) -> Iterator[Any]:
    """From the most special to one that knows every loop nest."""
    yield dlight.gpu.Matmul()
    lengths = _reductions(func)
    if len(lengths) > 1 or max(lengths, default=0) >= SHORT:
        yield dlight.gpu.GEMV()
        yield dlight.gpu.Reduction()
        yield dlight.gpu.GeneralReduction()
    yield _Windows()
    yield dlight.gpu.Fallback()


def _reductions(func: Any) -> list[int]:
    """Terms of the function's sums."""
    found: list[int] = []

    def see(block: Any) -> None:
        axes = [i for i in block.iter_vars if i.iter_type == tirx.IterVar.CommReduce]
        if axes:
            found.append(prod(int(axis.dom.extent) for axis in axes))

    structural_walk(func.body, (s_tir.SBlock, see))
    return found


def _applied(rule: Any, func: Any, target: Any) -> Any:
    """What a rule makes of a function, where it knows it and blocks have the shared memory."""
    try:
        found = rule.apply(func, target, False)
        if found is None:
            return None
        scheduled = (found[0] if isinstance(found, list) else found).mod["main"]
        fits = _shared_bytes(scheduled) <= STATIC_SHARED_BYTES
    except Exception:  # rules, and what lowers them, find out late that a nest is not theirs
        return None
    return scheduled.with_attrs(dict(func.attrs or {})) if fits else None


def _shared_bytes(func: Any) -> int:
    """Shared memory of a block of a scheduled PrimFunc."""
    passes = s_tir.transform
    planned = Sequential(
        [
            passes.LowerCrossThreadReduction(),
            passes.LowerInitBlock(),
            passes.PlanAndUpdateBufferAllocationLocation(),
            passes.ConvertBlocksToOpaque(),
            passes.CompactBufferAllocation(),
        ]
    )(IRModule({"main": func}))
    sizes: list[int] = []

    def see(block: Any) -> None:
        shared = [buffer for buffer in block.alloc_buffers if buffer.scope() == "shared"]
        sizes.extend(_bytes(buffer) for buffer in shared)

    structural_walk(planned["main"].body, (s_tir.SBlock, see))
    return sum(sizes)


def _bytes(buffer: Any) -> int:
    return prod(int(extent) for extent in buffer.shape) * DataType(buffer.dtype).itemsize


class _Windows(dlight.gpu.base.GPUScheduleRule):
    """A sum of few terms, such as of a window, and what follows it: a thread for each result."""

    def apply(self, func: Any, _target: Any, _tunable: bool) -> Any:
        """Schedule of ``func``, or None where it has more than such a sum."""
        sch = s_tir.Schedule(func)
        infos = dlight.normalize_prim_func(sch)
        if infos is None:
            return None
        infos = dlight.try_inline(sch, infos)
        if [each.is_reduction() for each in infos] != [True, False]:
            return None
        total, result = (each.block_rv for each in infos)
        across, thread = sch.split(sch.fuse(*sch.get_loops(result)), factors=[None, THREADS])
        sch.bind(across, "blockIdx.x")
        sch.bind(thread, "threadIdx.x")
        sch.compute_at(total, thread)
        sch.set_scope(total, 0, "local")
        _, _, *inner = sch.get_loops(total)
        if inner:
            sch.decompose_reduction(total, inner[0])
        return sch
