"""Device code of TVM's own schedules, as exact and as safe as the kernels that are written out."""

from math import prod
from typing import Any

from tvm import tirx
from tvm.ir import Call, TensorLoad
from tvm_ffi import structural_equal, structural_map, structural_walk

_WARP = 32  # threads that execute together
_ALL_LANES = 0xFFFFFFFF


def refined(func: Any) -> Any:
    """A device function with two things put right.

    Sums of products become fused multiply-adds: source is compiled without contraction, and only
    here it is known that the order of a sum is free. And reductions of whole warps name all lanes:
    TVM asks which are active, and those that come out of a branch need not be back yet.
    """
    are_whole = _threads(func) % _WARP == 0

    def mask(value: Any) -> Any:
        is_mask = getattr(value.op, "name", "") == "tirx.tvm_warp_activemask"
        return tirx.const(_ALL_LANES, "uint32") if is_mask and are_whole else value

    return func.with_body(structural_map(func.body, [(tirx.BufferStore, _fused), (Call, mask)]))


def _threads(func: Any) -> int:
    """Threads of a block."""
    extents: dict[str, int] = {}

    def see(statement: Any) -> None:
        if statement.attr_key == "thread_extent":
            extents[str(statement.node.thread_tag)] = int(statement.value)

    structural_walk(func.body, (tirx.AttrStmt, see))
    return prod(extent for axis, extent in extents.items() if axis.startswith("threadIdx"))


def _fused(statement: Any) -> Any:
    """``a[i] = a[i] + x * y`` as a fused multiply-add."""
    value = statement.value
    if not isinstance(value, tirx.Add) or not str(value.ty.dtype).startswith("float32"):
        return statement
    total, product = value.a, value.b
    if not isinstance(product, tirx.Mul) or not _is_of(total, statement):
        return statement
    fused = tirx.call_pure_extern(str(value.ty.dtype), "__fmaf_rn", product.a, product.b, total)
    return tirx.BufferStore(statement.buffer, fused, statement.indices)


def _is_of(value: Any, statement: Any) -> bool:
    """Whether ``value`` is what the statement is about to overwrite."""
    return (
        isinstance(value, TensorLoad)
        and value.source.same_as(statement.buffer)
        and structural_equal(value.indices, statement.indices)
    )
