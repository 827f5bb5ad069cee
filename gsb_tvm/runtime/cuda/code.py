"""Generating code for a GPU: source, machine code, and the launches of a whole model.

A shared library for a GPU holds data alone: constants, machine code for one architecture, PTX for
later ones, and the metadata, which lists the launches. Whoever loads it needs the driver and
nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, zip_longest
from typing import Any

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Code, attributes, plan
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.cuda.joints import Joint, grouped, with_joints
from gsb_tvm.runtime.cuda.launches import Kernel, Launch, lower
from gsb_tvm.runtime.cuda.levels import Arranged, arranged
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.runtime.cuda.symbols import cubin_symbol, ptx_symbol, section_of
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.program import Buffer, Step, aligned, program
from gsb_tvm.targets.gpus import Gpu
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
    order = arranged(program(planned, constants))
    calls = order.program
    names = sorted({step.kernel for step in calls.steps})
    lowered = lower({name: planned[name] for name in names}, profile)
    memory = _Memory(order, lowered.kernels)
    launches, source = _launches(memory, lowered.source, profile.gpu)
    compiled = compile_source(source, profile.gpu.arch)
    blobs = [
        Blob(section_of(symbol), symbol, data)
        for symbol, data in (
            (cubin_symbol(name), compiled.cubin),
            (ptx_symbol(name), compiled.ptx),
        )
    ]
    texts = {"model.cu": lambda: source, "model.ptx": lambda: compiled.ptx_text}
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


@dataclass(frozen=True)
class _Part:
    """A launch of a step, and where its pointers point."""

    launch: Launch
    places: tuple[meta.Place, ...]
    step: int


class _Memory:
    """What a call writes: tensors, then scratch of one level at a time, then state of all.

    Steps of a level have scratch and state of their own; kernels leave state as they find it.
    """

    def __init__(self, order: Arranged, kernels: Mapping[str, Kernel]) -> None:
        self._levels, self._kernels = order.levels, kernels
        self._scratch = aligned(order.program.arena_bytes)
        needs = list(map(self._beside, order.levels))
        self._state = self._scratch + max((scratch for scratch, _ in needs), default=0)
        self.size = self._state + max((state for _, state in needs), default=0)

    def rounds(self) -> Iterator[list[_Part]]:
        """Launches that may run at once, one list behind the other."""
        number = count()
        for level in self._levels:
            sequences, scratch, state = [], self._scratch, self._state
            for step in level:
                kernel, this = self._kernels[step.kernel], next(number)
                bases = {"scratch": scratch, "state": state}
                sequences.append(
                    [_Part(each, _places(each, step, bases), this) for each in kernel.launches]
                )
                scratch += aligned(kernel.scratch_bytes)
                state += aligned(kernel.state_bytes)
            for found in zip_longest(*sequences):
                yield [part for part in found if part is not None]

    def _beside(self, level: Sequence[Step]) -> tuple[int, int]:
        kernels = [self._kernels[step.kernel] for step in level]
        scratch = sum(aligned(kernel.scratch_bytes) for kernel in kernels)
        return scratch, sum(aligned(kernel.state_bytes) for kernel in kernels)


def _places(launch: Launch, step: Step, bases: Mapping[str, int]) -> tuple[meta.Place, ...]:
    return tuple(
        _place(step.args[argument.at])
        if argument.kind == "tensor"
        else meta.Place("memory", bases[argument.kind] + argument.at)
        for argument in launch.arguments
    )


def _place(buffer: Buffer) -> meta.Place:
    where = "memory" if buffer.place == "arena" else buffer.place
    return meta.Place(where, buffer.at)


def _launches(memory: _Memory, source: str, gpu: Gpu) -> tuple[tuple[meta.Launch, ...], str]:
    """Launches of a call in order, and the source with the functions that they launch."""
    found: list[meta.Launch] = []
    joints: dict[str, Joint] = {}
    alone: set[str] = set()
    for parts in memory.rounds():
        for group in grouped([part.launch for part in parts], gpu):
            members = [parts[number] for number in group]
            places = tuple(place for member in members for place in member.places)
            steps = tuple(member.step for member in members)
            first = members[0].launch
            if len(members) == 1:
                function, grid = first.function, first.grid
                alone.add(function)
            else:
                joint = Joint(tuple(member.launch for member in members))
                function, grid = joint.function, (joint.blocks, 1, 1)
                joints[function] = joint
            found.append(meta.Launch(function, grid, first.block, places, steps))
    return tuple(found), with_joints(source, list(joints.values()), alone)
