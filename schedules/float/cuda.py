"""Float operators on CUDA: TVM's general schedules for GPUs, of which the first that fits is taken.

None multiplies in fewer digits: only inputs of 16 bits or fewer go to tensor cores. Which of those
that fit is the fastest, and with how many threads, is a choice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
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

VERSION = 1
"""Of the schedules: one more wherever the same choice gives another kernel."""

THREADS = 256
"""Of a block whose threads share nothing: a quarter of the most, so that small tensors are more
blocks."""

MOST_THREADS = 1024
"""Of a block, on every architecture."""

SHORT = 32
"""Terms of a sum below which one thread adds them up, not a block."""


class Method(StrEnum):
    """A schedule, from the most special to one that knows every loop nest."""

    MATMUL = "matmul"
    GEMV = "gemv"
    REDUCTION = "reduction"
    REDUCTIONS = "reductions"
    WINDOWS = "windows"
    ELEMENTS = "elements"


_SHARING_NOTHING = (Method.WINDOWS, Method.ELEMENTS)
_FOR_LONG_SUMS = (Method.GEMV, Method.REDUCTION, Method.REDUCTIONS)


@dataclass(frozen=True)
class Parameters:
    """Of one kernel: its schedule, and threads that a block has at most."""

    method: Method
    threads: int


class Plan:
    """A PrimFunc whose loop nests no thread is bound to."""

    parameters = Parameters

    def __init__(self, func: Any) -> None:
        self._func = func
        self._known: dict[tuple[Profile, Parameters], Any] = {}

    def rule(self, profile: Profile) -> Parameters:
        """The first schedule that fits, of those that suit the lengths of sums."""
        lengths = _reductions(self._func)
        has_long = len(lengths) > 1 or max(lengths, default=0) >= SHORT
        usual = (each for each in Method if has_long or each not in _FOR_LONG_SUMS)
        return next(p for p in map(_usual, usual) if self._scheduled(profile, p) is not None)

    def space(self, profile: Profile) -> Iterator[Parameters]:
        """All schedules that fit; where threads share nothing, with more or fewer of them."""
        for method in Method:
            if self._scheduled(profile, _usual(method)) is None:
                continue
            yield _usual(method)
            if method in _SHARING_NOTHING:
                yield from (Parameters(method, threads) for threads in (64, 128, 512, 1024))

    def write(self, profile: Profile, parameters: Parameters) -> Any:
        """The PrimFunc as launches with the same arguments."""
        found = self._scheduled(profile, parameters)
        assert found is not None
        return found

    def _scheduled(self, profile: Profile, parameters: Parameters) -> Any:
        """The PrimFunc by a schedule; None where that does not fit."""
        key = profile, parameters
        if key not in self._known:  # what the rule tries is written next
            with _target(profile, parameters.threads) as target:
                self._known[key] = _applied(_RULES[parameters.method], self._func, target)
        return self._known[key]


def _usual(method: Method) -> Parameters:
    """Of a method, with as many threads as by rule."""
    return Parameters(method, THREADS if method in _SHARING_NOTHING else MOST_THREADS)


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

    def apply(self, func: Any, target: Any, _tunable: bool) -> Any:
        """Schedule of ``func``, or None where it has more than such a sum."""
        sch = s_tir.Schedule(func)
        infos = dlight.normalize_prim_func(sch)
        if infos is None:
            return None
        infos = dlight.try_inline(sch, infos)
        if [each.is_reduction() for each in infos] != [True, False]:
            return None
        total, result = (each.block_rv for each in infos)
        threads = int(target.attrs["max_num_threads"])
        across, thread = sch.split(sch.fuse(*sch.get_loops(result)), factors=[None, threads])
        sch.bind(across, "blockIdx.x")
        sch.bind(thread, "threadIdx.x")
        sch.compute_at(total, thread)
        sch.set_scope(total, 0, "local")
        _, _, *inner = sch.get_loops(total)
        if inner:
            sch.decompose_reduction(total, inner[0])
        return sch


_RULES = {
    Method.MATMUL: dlight.gpu.Matmul(),
    Method.GEMV: dlight.gpu.GEMV(),
    Method.REDUCTION: dlight.gpu.Reduction(),
    Method.REDUCTIONS: dlight.gpu.GeneralReduction(),
    Method.WINDOWS: _Windows(),
    Method.ELEMENTS: dlight.gpu.Fallback(),
}
