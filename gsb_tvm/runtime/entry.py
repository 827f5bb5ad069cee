"""From a planned module to one function that runs the whole model, on one thread or several.

Every kernel becomes private functions on bare pointers, one for each of its phases
(:mod:`gsb_tvm.schedules.sharing`); ``network`` calls them in order and waits at a barrier behind
each; the exported ``gsb_run`` starts ``network`` once for each part. Nothing is allocated and
nothing of a runtime is called, but for starting parts:

    int gsb_run(inputs ..., outputs ..., void* memory, const void* weights,
                int64_t* ticks, int32_t parts, int32_t timed)

``memory`` holds tensors, scratch that all parts share, the barrier's epochs, and scratch of each
part (:class:`gsb_tvm.runtime.metadata.Memory`). Where ``timed`` is not 0, ``ticks[0]`` is the clock
before the first step and ``ticks[i + 1]`` after step i, as part 0 sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Call, GlobalVar, IRModule, PointerType, PrimType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.parts import MOST_PARTS
from gsb_tvm.dialect.phases import is_phase, statements
from gsb_tvm.runtime.elf import ALIGNMENT
from gsb_tvm.runtime.metadata import ENTRY
from gsb_tvm.runtime.program import Buffer, Program, Step, aligned
from gsb_tvm.targets.profile import Profile

Expr = Any

_SYNC_STRIDE = ALIGNMENT // 4  # int32 numbers from one part's epoch to the next: a cache line
_SPINS = 2000  # about 20 us of waiting before a thread offers its core to others
_DMB_ISH, _YIELD = 11, 1  # operands of dmb and hint, Arm ARM, C6.2


@dataclass(frozen=True)
class Entry:
    """A TIR module whose ``gsb_run`` runs a program; ``part_base`` is where parts' scratch begins.

    ``kernels`` names the functions that may need scratch of their own.
    """

    module: IRModule
    part_base: int


def entry(program: Program, planned: IRModule, profile: Profile) -> Entry:
    """The function that runs ``program``, with the kernels of ``planned``."""
    scratch = aligned(program.arena_bytes)
    used = sorted({step.kernel for step in program.steps})
    kernels = {name: _Kernel(name, planned[name], scratch) for name in used}
    sync = scratch + max((kernel.shared_bytes for kernel in kernels.values()), default=0)
    network = _network(program, kernels, sync, profile)
    functions = {
        _BARRIER: _barrier(profile),
        _NETWORK: network,
        GlobalVar(ENTRY): _run(program, sync),
    }
    for kernel in kernels.values():
        functions |= kernel.functions
    part_base = sync + 4 * _SYNC_STRIDE * MOST_PARTS
    return Entry(IRModule(functions), part_base)


_BARRIER, _NETWORK = GlobalVar("barrier"), GlobalVar("network")


class _Kernel:
    """A kernel as private functions, one for each phase.

    Their parameters are a pointer for each tensor, the call's memory, the part and the number of
    parts. A kernel without phases is one function for part 0.
    """

    def __init__(self, name: str, func: tirx.PrimFunc, scratch: int) -> None:
        self.func = func
        body = statements(func)
        phases = [statement for statement in body if is_phase(statement)]
        self.is_shared = bool(phases)
        self.shared_bytes = 0
        self.functions: dict[GlobalVar, tirx.PrimFunc] = {}
        if not phases:
            variables = [tirx.Var("part", PrimType("int32")), tirx.Var("parts", PrimType("int32"))]
            self.functions[GlobalVar(name)] = self._function([], func.body, variables)
            return
        buffers = [statement.buffer for statement in body if not is_phase(statement)]
        offsets = []
        for buffer in buffers:
            offsets.append((buffer, scratch + self.shared_bytes))
            self.shared_bytes += aligned(_allocated(buffer))
        for i, loop in enumerate(phases):
            root = s_tir.SBlock([], [], [], "root", loop.body.body)
            body = s_tir.SBlockRealize([], True, root)
            made = self._function(offsets, body, [loop.body.loop_var, loop.loop_var])
            self.functions[GlobalVar(f"{name}_phase{i}" if len(phases) > 1 else name)] = made

    def _function(
        self, shared: Sequence[tuple[Any, int]], body: Any, variables: Sequence[Any]
    ) -> tirx.PrimFunc:
        buffers = self.func.params
        handles = [tirx.Var(buffer.name, _pointer(str(buffer.ty.dtype))) for buffer in buffers]
        memory = tirx.Var("memory", _pointer("uint8"))
        declared = [
            tirx.DeclBuffer(buffer, data=handle)
            for buffer, handle in zip(buffers, handles, strict=True)
        ]
        if shared:
            flat = tirx.decl_buffer((2**30,), "uint8", "shared")
            declared.append(tirx.DeclBuffer(flat, data=memory))
            declared += [tirx.DeclBuffer(b, data=address(flat, at)) for b, at in shared]
        params = [*handles, memory, *variables]
        made = tirx.PrimFunc(params, tirx.SeqStmt([*declared, body]), PrimType("int32"))
        return made.with_attrs({"tirx.noalias": True, "s_tir": True})


def address(flat: Any, offset: Expr) -> Expr:
    """Pointer to byte ``offset`` of a flat buffer of bytes."""
    return T.address_of(tirx.BufferLoad(flat, [offset]))


def _pointer(dtype: str) -> PointerType:
    return PointerType(PrimType(dtype))


def _allocated(buffer: Any) -> int:
    count = 1
    for extent in buffer.ty.shape:
        count *= int(extent)
    return count * Buffer("arena", 0, (1,), str(buffer.ty.dtype)).size_bytes


def _call(function: GlobalVar, *args: Expr) -> None:
    T.evaluate(Call(function, list(args), ret_ty=PrimType("int32")))


@dataclass(frozen=True)
class _Arguments:
    """Parameters of ``gsb_run`` and ``network``."""

    inputs: list[Expr]
    outputs: list[Expr]
    memory: Expr
    weights: Expr
    ticks: Expr

    @property
    def all(self) -> list[Expr]:
        """In the order of the parameters."""
        return [*self.inputs, *self.outputs, self.memory, self.weights, self.ticks]


def _arguments(program: Program) -> _Arguments:
    def pointer(name: str, dtype: str) -> Expr:
        return T.arg(name, tirx.Var(name, _pointer(dtype)))

    inputs = [pointer(f"input{i}", tensor.dtype) for i, tensor in enumerate(program.inputs)]
    outputs = [pointer(f"output{i}", "uint8") for i, _ in enumerate(program.outputs)]
    rest = [pointer("memory", "uint8"), pointer("weights", "uint8"), pointer("ticks", "int64")]
    return _Arguments(inputs, outputs, *rest)


def _number(name: str) -> Expr:
    return T.arg(name, tirx.Var(name, PrimType("int32")))


def _run(program: Program, sync: int) -> tirx.PrimFunc:
    """The exported function."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name(ENTRY)
            # The calling convention of a function that is called as it stands.
            T.func_attr({"global_symbol": ENTRY, "calling_conv": 1})
            T.func_ret(PrimType("int32"))
            arguments = _arguments(program)
            parts, timed = _number("parts"), _number("timed")
            with T.If(parts == 1):
                with T.Then():
                    _call(_NETWORK, *arguments.all, T.int32(0), T.int32(1), timed)
                with T.Else():
                    epochs = T.decl_buffer((2**28,), "int32", data=arguments.memory)
                    with T.serial(0, parts) as part:
                        T.buffer_store(epochs, T.int32(0), [sync // 4 + part * _SYNC_STRIDE])
                    with T.parallel(0, parts) as part:
                        first_timed = T.Select(part == 0, timed, T.int32(0))
                        _call(_NETWORK, *arguments.all, part, parts, first_timed)
            T.Return(T.int32(0))
    return builder.get()


def _network(
    program: Program, kernels: dict[str, _Kernel], sync: int, profile: Profile
) -> tirx.PrimFunc:
    """One part of the whole model."""
    with IRBuilder() as builder:
        with T.prim_func(private=True, s_tir=True):
            T.func_name("network")
            T.func_ret(PrimType("int32"))
            arguments = _arguments(program)
            part, parts, timed = _number("part"), _number("parts"), _number("timed")
            places = {
                "arena": T.decl_buffer((2**30,), "uint8", data=arguments.memory),
                "constant": T.decl_buffer((2**30,), "uint8", data=arguments.weights),
            }
            ticks = T.decl_buffer((len(program.steps) + 1,), "int64", data=arguments.ticks)

            def place(buffer: Buffer) -> Expr:
                if buffer.place == "input":
                    return arguments.inputs[buffer.at]
                return address(places[buffer.place], buffer.at)

            def tick(i: int) -> None:
                with T.If(timed != 0), T.Then():
                    T.buffer_store(ticks, _clock(profile), [i])

            def run(step: Step, epoch: int) -> int:
                kernel = kernels[step.kernel]
                args = [*map(place, step.args), arguments.memory, part, parts]
                for function in kernel.functions:
                    epoch += 1
                    _call_part(kernel, function, args, part)
                    _call(_BARRIER, address(places["arena"], sync), part, parts, T.int32(epoch))
                return epoch

            tick(0)
            epoch = 0
            for i, step in enumerate(program.steps):
                epoch = run(step, epoch)
                tick(i + 1)
            with T.If(part == 0), T.Then():
                for buffer, pointer in zip(program.outputs, arguments.outputs, strict=True):
                    _copy(place(buffer), pointer, buffer.size_bytes)
    return builder.get()


def _call_part(kernel: _Kernel, function: GlobalVar, args: list[Expr], part: Expr) -> None:
    if kernel.is_shared:
        _call(function, *args)
        return
    with T.If(part == 0), T.Then():
        _call(function, *args)


def _copy(source: Expr, target: Expr, size: int) -> None:
    if not size:
        return
    read = T.decl_buffer((size,), "uint8", data=source)
    write = T.decl_buffer((size,), "uint8", data=target)
    with T.serial(0, size) as i:
        T.buffer_store(write, read[i], [i])


def _clock(profile: Profile) -> Expr:
    """Ticks of a clock of fixed rate that user code may read.

    The time stamp counter on x86 (Intel SDM, RDTSC), the virtual counter on Arm (CNTVCT_EL0).
    """
    name = "readcyclecounter" if profile.arch == "x86_64" else "readsteadycounter"
    return tirx.call_llvm_intrin("int64", f"llvm.{name}")


def _barrier(profile: Profile) -> tirx.PrimFunc:
    """Wait until every part has reached ``epoch``; what they wrote before can be read after."""
    with IRBuilder() as builder:
        with T.prim_func(private=True, s_tir=True):
            T.func_name("barrier")
            T.func_ret(PrimType("int32"))
            handle = T.arg("sync", tirx.Var("sync", _pointer("int32")))
            part, parts, epoch = _number("part"), _number("parts"), _number("epoch")
            epochs = T.decl_buffer((_SYNC_STRIDE * MOST_PARTS,), "int32", data=handle)
            with T.If(parts > 1), T.Then():
                _fence(profile)
                T.buffer_store(epochs, epoch, [part * _SYNC_STRIDE])
                with T.serial(0, parts) as other:
                    _wait(profile, lambda: epochs[other * _SYNC_STRIDE] < epoch)
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
