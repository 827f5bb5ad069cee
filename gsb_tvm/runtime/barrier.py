"""What the parts of a call need of the machine: waiting for each other, and a clock."""

from typing import Any

from tvm import tirx
from tvm.ir import PrimType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.runtime.elf import ALIGNMENT
from gsb_tvm.runtime.functions import number, pointer_type
from gsb_tvm.targets.profile import Profile

STRIDE = ALIGNMENT // 4
"""int32 numbers from one part's epoch to the next: a cache line."""

SYNC_BYTES = 4 * STRIDE * MOST_PARTS
"""All epochs."""

_SPINS = 2000  # about 20 us of waiting before a thread offers its core to others
# TVM has no other way to say inline assembly; it inlines what it imports.
_COUNTER = """\
define i64 @gsb_counter() {
  %ticks = call i64 asm sideeffect "mrs $0, cntvct_el0", "=r"()
  ret i64 %ticks
}
"""
_DMB_ISH, _YIELD = 11, 1  # operands of dmb and hint, Arm ARM, C6.2


def clock(profile: Profile) -> tirx.PrimFunc:
    """Write the ticks of a clock of fixed rate that user code may read to ``at``, int64.

    The time stamp counter on x86 (Intel SDM, RDTSC), the virtual counter on Arm (Arm ARM,
    CNTVCT_EL0), for which there is no intrinsic: on Arm ``llvm.readcyclecounter`` reads a register
    that Linux keeps from user code, and ``llvm.readsteadycounter`` is 0 in the LLVM of TVM 0.27.
    """
    with IRBuilder() as builder:
        with T.prim_func(private=True, s_tir=True):
            T.func_name("clock")
            T.func_ret(PrimType("int32"))
            handle = T.arg("at", tirx.Var("at", pointer_type("int64")))
            at = T.decl_buffer((1,), "int64", data=handle)
            if profile.arch == "x86_64":
                T.buffer_store(at, tirx.call_llvm_intrin("int64", "llvm.readcyclecounter"), [0])
            else:
                with T.attr(T.int32(0), "pragma_import_llvm", _COUNTER):
                    T.buffer_store(at, tirx.call_extern("int64", "gsb_counter"), [0])
    return builder.get()


def barrier(profile: Profile) -> tirx.PrimFunc:
    """Wait until every part has reached ``epoch``; what they wrote before can be read after."""
    with IRBuilder() as builder:
        with T.prim_func(private=True, s_tir=True):
            T.func_name("barrier")
            T.func_ret(PrimType("int32"))
            handle = T.arg("sync", tirx.Var("sync", pointer_type("int32")))
            part, parts, epoch = number("part"), number("parts"), number("epoch")
            epochs = T.decl_buffer((STRIDE * MOST_PARTS,), "int32", data=handle)
            with T.If(parts > 1), T.Then():
                _fence(profile)
                T.buffer_store(epochs, epoch, [part * STRIDE])
                with T.serial(0, parts) as other:
                    _wait(profile, lambda: epochs[other * STRIDE] < epoch)
                _fence(profile)
    return builder.get()


def _wait(profile: Profile, behind: Any) -> None:
    spins = T.alloc_buffer((1,), "int32", scope="global")
    T.buffer_store(spins, T.int32(0), [0])
    with T.While(behind()):
        _pause(profile)
        T.buffer_store(spins, spins[0] + 1, [0])
        with T.If(spins[0] > _SPINS), T.Then():
            T.evaluate(tirx.call_extern("int32", "sched_yield"))


def _fence(profile: Profile) -> None:
    """Order memory accesses of this thread, in the compiler and in the machine."""
    if profile.arch == "x86_64":
        T.evaluate(tirx.call_llvm_intrin("void", "llvm.x86.sse2.mfence"))
    else:
        T.evaluate(tirx.call_llvm_intrin("void", "llvm.aarch64.dmb", T.int32(_DMB_ISH)))


def _pause(profile: Profile) -> None:
    """Tell the machine that this is a waiting loop; the compiler reads memory anew."""
    if profile.arch == "x86_64":
        T.evaluate(tirx.call_llvm_intrin("void", "llvm.x86.sse2.pause"))
    else:
        T.evaluate(tirx.call_llvm_intrin("void", "llvm.aarch64.hint", T.int32(_YIELD)))
