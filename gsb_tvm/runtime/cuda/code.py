"""Generating code for a GPU: source, machine code, and the launches of a whole model.

A shared library for a GPU holds data alone: constants, machine code for one architecture, PTX for
later ones, and the metadata, which lists the launches. Whoever loads it needs the driver and
nothing else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Code, attributes, plan
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.cuda.launches import Argument, Kernel, lower
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.runtime.cuda.symbols import cubin_symbol, ptx_symbol, section_of
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.program import Buffer, Program, aligned, program
from gsb_tvm.targets.profile import Profile


def generate(module: Any, profile: Profile, name: str, constants: Constants) -> Code:
    """Compile a lowered module for the GPU of ``profile``; arguments as for a CPU's.

    Raises
    ------
    ModelError
        ``main`` holds something that is no call of a kernel.
    ToolchainError
        NVIDIA's compiler is not installed, or does not know the GPU.
    """
    assert profile.gpu is not None
    planned = plan(module, profile)
    calls = program(planned, constants)
    names = sorted({step.kernel for step in calls.steps})
    lowered = lower({name: planned[name] for name in names}, profile)
    compiled = compile_source(lowered.source, profile.gpu.arch)
    memory = _Memory(calls, lowered.kernels.values())
    launches = _launches(calls, lowered.kernels, memory)
    blobs = [
        Blob(section_of(symbol), symbol, data)
        for symbol, data in (
            (cubin_symbol(name), compiled.cubin),
            (ptx_symbol(name), compiled.ptx),
        )
    ]
    texts = {"model.cu": lambda: lowered.source, "model.ptx": lambda: compiled.ptx_text}
    return Code(
        calls,
        constants,
        meta.Memory(memory.size, 0),
        *attributes(calls, planned),
        data_object(profile.arch, blobs),
        name,
        texts,
        launches,
        tuple(_place(buffer) for buffer in calls.outputs),
    )


class _Memory:
    """What a call writes: tensors, then scratch of one kernel at a time, then state of all."""

    def __init__(self, calls: Program, kernels: Any) -> None:
        every: Sequence[Kernel] = list(kernels)
        self.scratch = aligned(calls.arena_bytes)
        self.state = self.scratch + aligned(max((k.scratch_bytes for k in every), default=0))
        self.size = self.state + aligned(max((k.state_bytes for k in every), default=0))

    def place(self, argument: Argument, tensors: Sequence[Buffer]) -> meta.Place:
        """Where an argument of a launch is; ``tensors`` are those of the kernel's call."""
        if argument.kind == "tensor":
            return _place(tensors[argument.at])
        base = self.scratch if argument.kind == "scratch" else self.state
        return meta.Place("memory", base + argument.at)


def _place(buffer: Buffer) -> meta.Place:
    where = "memory" if buffer.place == "arena" else buffer.place
    return meta.Place(where, buffer.at)


def _launches(
    calls: Program, kernels: Mapping[str, Kernel], memory: _Memory
) -> tuple[meta.Launch, ...]:
    return tuple(
        meta.Launch(
            launch.function,
            launch.grid,
            launch.block,
            tuple(memory.place(argument, step.args) for argument in launch.arguments),
            number,
        )
        for number, step in enumerate(calls.steps)
        for launch in kernels[step.kernel].launches
    )
