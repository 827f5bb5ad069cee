"""From a planned module to one function that runs the whole model, on one thread or several.

Every kernel becomes private functions on bare pointers, one for each of its phases
(:mod:`gsb_tvm.schedules.sharing`); the exported ``<name>_part`` calls them in order and waits at a
barrier behind each. Nothing is allocated and nothing of a runtime is called:

    int <name>_part(inputs ..., outputs ..., void* memory, const void* weights,
                    int64_t* ticks, int32_t part, int32_t parts, int32_t timed)

Each of ``parts`` threads calls it once, with a part of its own, after the epochs were set to zero;
it returns 0. ``memory`` holds tensors, scratch that all parts share, the barrier's epochs, and
scratch of each part (:class:`gsb_tvm.runtime.metadata.Memory`). Where ``timed`` is not 0,
``ticks[0]`` is the clock before the first step and ``ticks[i + 1]`` after step i.

A shared library also exports ``<name>_run``, with ``parts`` in the place of ``part, parts``: it
starts all parts by the function to which ``__TVMBackendParallelLaunch`` points, which is TVM's.
"""

from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Call, GlobalVar, IRModule, PrimType
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T

from gsb_tvm.runtime.barrier import STRIDE, SYNC_BYTES, barrier, clock
from gsb_tvm.runtime.functions import Kernel, address, number, pointer_type
from gsb_tvm.runtime.program import Buffer, Program, Step, aligned
from gsb_tvm.targets.profile import Profile

Expr = Any


@dataclass(frozen=True)
class Entry:
    """TIR that runs a program; memory from ``part_base`` on is scratch of parts."""

    module: IRModule
    part_base: int


def entry(
    program: Program, planned: IRModule, profile: Profile, name: str, *, launches: bool
) -> Entry:
    """The functions that run ``program``, with the kernels of ``planned``.

    ``name`` begins the names of what is exported; with ``launches`` that is ``<name>_run`` too.
    """
    scratch = aligned(program.arena_bytes)
    used = sorted({step.kernel for step in program.steps})
    kernels = {name: Kernel(name, planned[name], scratch) for name in used}
    sync = scratch + max((kernel.shared_bytes for kernel in kernels.values()), default=0)
    part = GlobalVar(f"{name}_part")
    functions = {_BARRIER: barrier(profile), _CLOCK: clock(profile)}
    functions[part] = _part(part, program, kernels, sync)
    if launches:
        run = GlobalVar(f"{name}_run")
        functions[run] = _run(run, program, part, sync)
    for kernel in kernels.values():
        functions |= kernel.functions
    part_base = sync + SYNC_BYTES
    return Entry(IRModule(functions), part_base)


_BARRIER = GlobalVar("barrier")
_CLOCK = GlobalVar("clock")


def _call(function: GlobalVar, *args: Expr) -> None:
    T.evaluate(Call(function, list(args), ret_ty=PrimType("int32")))


@dataclass(frozen=True)
class _Arguments:
    """Parameters that both exported functions begin with."""

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
        return T.arg(name, tirx.Var(name, pointer_type(dtype)))

    inputs = [pointer(f"input{i}", tensor.dtype) for i, tensor in enumerate(program.inputs)]
    outputs = [pointer(f"output{i}", "uint8") for i, _ in enumerate(program.outputs)]
    rest = [pointer("memory", "uint8"), pointer("weights", "uint8"), pointer("ticks", "int64")]
    return _Arguments(inputs, outputs, *rest)


def _export(name: GlobalVar) -> None:
    """Make the function that is being written one that is called as it stands, by its name."""
    T.func_name(name.name_hint)
    T.func_attr({"global_symbol": name.name_hint, "calling_conv": 1})
    T.func_ret(PrimType("int32"))


def _run(name: GlobalVar, program: Program, part_of: GlobalVar, sync: int) -> tirx.PrimFunc:
    """All parts, on threads."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            _export(name)
            arguments = _arguments(program)
            parts, timed = number("parts"), number("timed")
            with T.If(parts == 1):
                with T.Then():
                    _call(part_of, *arguments.all, T.int32(0), T.int32(1), timed)
                with T.Else():
                    epochs = T.decl_buffer((2**28,), "int32", data=arguments.memory)
                    with T.serial(0, parts) as part:
                        T.buffer_store(epochs, T.int32(0), [sync // 4 + part * STRIDE])
                    with T.parallel(0, parts) as part:
                        first_timed = T.Select(part == 0, timed, T.int32(0))
                        _call(part_of, *arguments.all, part, parts, first_timed)
            T.Return(T.int32(0))
    return builder.get()


def _part(
    name: GlobalVar, program: Program, kernels: dict[str, Kernel], sync: int
) -> tirx.PrimFunc:
    """One part of the whole model."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            _export(name)
            arguments = _arguments(program)
            part, parts, timed = number("part"), number("parts"), number("timed")
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
                    _call(_CLOCK, address(ticks, i))

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


def _call_part(kernel: Kernel, function: GlobalVar, args: list[Expr], part: Expr) -> None:
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
