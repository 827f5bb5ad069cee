"""What a program does on a GPU: its launches, and copies of what a call takes and gives."""

from dataclasses import dataclass

import msgspec
import numpy as np

from gsb_tvm.runtime import metadata as meta

WORD_BYTES = 16
"""Kernels read and write words of at most so many bytes, each at a multiple of its own size."""

_ALIGNMENT = 256  # of memory, as the driver's own


@dataclass(frozen=True)
class CopyIn:
    """``size`` bytes of input ``number`` to ``at`` in the program's memory."""

    number: int
    at: int
    size: int


@dataclass(frozen=True)
class CopyOut:
    """``size`` bytes from ``source`` to output ``number``."""

    number: int
    source: meta.Place
    size: int


Action = CopyIn | meta.Launch | CopyOut


@dataclass(frozen=True)
class Actions:
    """Actions of a program in order, and the bytes of memory that they write."""

    actions: tuple[Action, ...]
    memory_bytes: int


def actions_of(program: meta.Program) -> Actions:
    """What a program does.

    An input whose images fill no whole words is copied: in a call of several programs it may begin
    between two words, behind the images of the program before.
    """
    copies, end = [], program.memory.fixed_bytes
    for number, spec in enumerate(program.inputs):
        if program.batch and size_of(spec) // program.batch % WORD_BYTES:
            at = -(-end // _ALIGNMENT) * _ALIGNMENT
            copies.append(CopyIn(number, at, size_of(spec)))
            end = at + size_of(spec)
    copied = {meta.Place("input", copy.number): meta.Place("memory", copy.at) for copy in copies}

    def reading(launch: meta.Launch) -> meta.Launch:
        arguments = tuple(copied.get(each, each) for each in launch.arguments)
        return msgspec.structs.replace(launch, arguments=arguments)

    results = [
        CopyOut(number, place, size_of(spec))
        for number, (place, spec) in enumerate(zip(program.results, program.outputs, strict=True))
        if size_of(spec)
    ]
    return Actions((*copies, *map(reading, program.launches), *results), end)


def touches_tensors(action: Action) -> bool:
    """Whether it reads or writes tensors of a call."""
    if isinstance(action, meta.Launch):
        return any(argument.where == "input" for argument in action.arguments)
    return True


def size_of(spec: meta.Tensor) -> int:
    """Bytes of a tensor."""
    return int(np.prod(spec.shape, dtype=np.int64)) * np.dtype(spec.dtype).itemsize
