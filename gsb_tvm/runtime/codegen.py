"""From the entry's TIR to machine code, with all scratch in the caller's memory."""

from typing import Any

from tvm import tirx
from tvm.ir import IRModule

from gsb_tvm.runtime.entry import Entry
from gsb_tvm.runtime.functions import address, allocated_bytes
from gsb_tvm.runtime.metadata import Memory
from gsb_tvm.runtime.program import aligned
from gsb_tvm.targets.profile import Profile

# Smaller allocations stay on the stack (tvm/runtime/device_api.h, kMaxStackAlloca).
_STACK_BYTES = 1024


def compile_entry(entry: Entry, profile: Profile) -> tuple[Any, Memory]:
    """The LLVM module of an entry, and the memory a call needs."""
    import tvm
    from tvm.tirx.compilation_pipeline import finalize_host_passes

    target = profile.tvm_target()
    bound = tirx.transform.BindTarget(target.with_host(target))(entry.module)
    pipeline, _, _ = tirx.get_default_tir_pipeline(target)
    with lowering():
        lowered, part_bytes = _place_scratch(pipeline(bound), entry.part_base)
    finished = finalize_host_passes()(lowered)
    code = tvm.get_global_func("target.build.llvm")(finished, target)
    return code, Memory(entry.part_base, part_bytes)


_NOT_FOR_KERNELS = (
    "s_tir.CompactBufferAllocation",
    "s_tir.HoistIfThenElse",
    "s_tir.InsertHoistIfThenElse",
    "s_tir.InjectVirtualThread",
    "s_tir.InjectPermutedLayout",
)


def lowering(*disabled: str) -> Any:
    """The context in which TVM lowers kernels: without passes that none needs, and ``disabled``.

    Kernels allocate what they use. To find out that there is nothing to cut off, TVM takes a time
    that grows faster than their buffers: 20 of the 56 s of a DeiT-Small for the Cortex-A72. Nor
    does it see what is written through a pointer, as by the trails of Neon's tables. The others
    take a tenth of the time, and change no byte of what LLVM and NVRTC make: no kernel has virtual
    threads or permuted layouts, and both move conditions out of loops themselves.
    """
    import tvm

    return tvm.transform.PassContext(disabled_pass=[*_NOT_FOR_KERNELS, *disabled])


def _place_scratch(module: IRModule, base: int) -> tuple[IRModule, int]:
    """Give every large allocation its place behind ``base``, in the stretch of its part."""
    found = {variable: _Scratch() for variable in module.get_global_vars()}
    for variable, scratch in found.items():
        scratch.find(module[variable].body)
    stride = max((scratch.size for scratch in found.values()), default=0)
    out = module.clone()
    for variable, scratch in found.items():
        func = module[variable]
        if scratch.size:
            func = scratch.place(func, base, stride)
        # Of an entry function TVM makes a second one, called by convention of its own.
        out.update_func(variable, func.without_attr("tirx.is_entry_func"))
    return out, stride


class _Scratch:
    """Large allocations of a function: buffers and their offsets."""

    def __init__(self) -> None:
        self.offsets: dict[Any, int] = {}
        self.size = 0

    def find(self, statement: Any) -> None:
        """Collect allocations, in order."""
        if isinstance(statement, tirx.AllocBuffer):
            if (size := allocated_bytes(statement.buffer)) >= _STACK_BYTES:
                self.offsets[statement.buffer] = self.size
                self.size += aligned(size)
        for child in children(statement):
            self.find(child)

    def place(self, func: tirx.PrimFunc, base: int, stride: int) -> tirx.PrimFunc:
        """``func`` with declarations instead of allocations; memory and part are parameters."""
        memory, part = func.params[-3:-1]
        flat = tirx.decl_buffer((2**30,), "uint8", "scratch")
        stretch = tirx.Cast("int64", part) * stride  # 64 parts of 32 MB are 2**31 bytes
        replaced = {
            buffer: tirx.DeclBuffer(buffer, data=address(flat, base + offset + stretch))
            for buffer, offset in self.offsets.items()
        }
        declared = tirx.DeclBuffer(flat, data=memory)
        return func.with_body(tirx.SeqStmt([declared, _rewritten(func.body, replaced)]))


def children(statement: Any) -> list[Any]:
    """Statements of which a statement is made."""
    if isinstance(statement, tirx.SeqStmt):
        return list(statement.seq)
    if isinstance(statement, tirx.IfThenElse):
        return [c for c in (statement.then_case, statement.else_case) if c is not None]
    return [statement.body] if hasattr(statement, "body") else []


def _rewritten(statement: Any, replaced: dict[Any, Any]) -> Any:
    """``statement`` with allocations replaced."""
    if isinstance(statement, tirx.AllocBuffer):
        return replaced.get(statement.buffer, statement)
    parts = [_rewritten(child, replaced) for child in children(statement)]
    if isinstance(statement, tirx.SeqStmt):
        return tirx.SeqStmt(parts)
    if isinstance(statement, tirx.IfThenElse):
        return tirx.IfThenElse(statement.condition, *parts, *[None] * (2 - len(parts)))
    if isinstance(statement, tirx.For):
        return tirx.For(
            statement.loop_var,
            statement.min,
            statement.extent,
            statement.kind,
            *parts,
            annotations=statement.annotations,
        )
    if isinstance(statement, tirx.While):
        return tirx.While(statement.condition, *parts)
    if isinstance(statement, tirx.AttrStmt):
        return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, *parts)
    return statement
