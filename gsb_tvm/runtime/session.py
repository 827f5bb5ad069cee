"""Loading an artefact and calling it."""

import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ArtefactError, UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.arguments import ordered
from gsb_tvm.runtime.arrays import Array, address, as_array, as_input, is_torch, zeros
from gsb_tvm.runtime.batches import cut, fit_together, only, sized
from gsb_tvm.runtime.library import Library
from gsb_tvm.runtime.sections import Contents
from gsb_tvm.runtime.workers import check_threads, share
from gsb_tvm.targets.host import host, missing
from gsb_tvm.targets.permission import tile_features


class Module:
    """A compiled model, callable from any number of threads at once.

    Attributes
    ----------
    metadata
        What the artefact says about itself.
    threads
        Threads that share the work of a call, the caller's among them.
    """

    def __init__(
        self, library: Library, metadata: meta.Metadata, data: Contents, threads: int
    ) -> None:
        self.metadata = metadata
        self.threads = threads
        self._library = library
        self._data = data
        self._rooms = threading.local()

    @property
    def report(self) -> tuple[meta.Layer, ...]:
        """One row for each matmul-like operator: packed or float, and why."""
        return self.metadata.program.layers

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run the model.

        Parameters
        ----------
        *args
            The inputs in order, or one mapping from names to inputs; each a NumPy array, a torch
            tensor on the CPU, or any object with ``__dlpack__`` on the CPU. Shapes and dtypes as
            in ``metadata.program.inputs``; where the model leaves the batch open, of any batch
            that its programs add up to (:mod:`gsb_tvm.runtime.batches`).
        **named
            Inputs by name.

        Returns
        -------
        numpy.ndarray or torch.Tensor or dict
            The output, or the outputs by name where there are several; torch tensors where an input
            was one.

        Raises
        ------
        UsageError
            An input is missing, unknown, or has another rank, shape or dtype. Or the system
            does not give the memory that a call needs.
        """
        values = self._ordered(list(args), named)
        outputs = self.run(self._checked(values))
        if any(is_torch(value) for value in values):
            outputs = [sys.modules["torch"].from_numpy(array) for array in outputs]
        if len(outputs) == 1:
            return outputs[0]
        names = [spec.name for spec in self.metadata.program.outputs]
        return dict(zip(names, outputs, strict=True))

    def inputs(self, *args: Any, **named: Any) -> list[Array]:
        """Arrays for :meth:`run` from what a call takes, checked as there."""
        return self._checked(self._ordered(list(args), named))

    def run(self, inputs: Sequence[Array]) -> list[Any]:
        """Run on checked, contiguous arrays in the order of the model's inputs."""
        return self._run(inputs, self.programs(inputs), timed=False)

    def programs(self, inputs: Sequence[Array]) -> list[meta.Program]:
        """Programs that compute a call on ``inputs``, in the order of the batch.

        Raises
        ------
        UsageError
            None add up to its batch.
        """
        first = self.metadata.program
        if not first.batch:
            return [first]
        return cut(len(inputs[0]), self.metadata.programs)

    def step_ticks(self, inputs: Sequence[Array]) -> NDArray[np.int64]:
        """Run once, inputs as for :meth:`run`, and read a clock between the steps.

        Returns
        -------
        numpy.ndarray
            (steps + 1,) int64: before the first of the program's steps and after each. The clock
            ticks at a fixed rate, which differs from machine to machine.

        Raises
        ------
        ArtefactError
            It does not name its steps.
        UsageError
            There is no program of just this batch.
        """
        program = self.whole(inputs)
        if not program.steps:  # the code writes a time for each, named or not
            raise ArtefactError(
                f"{self.metadata.model.name}: the artefact does not name its steps. "
                "Compile the model again."
            )
        self._run(inputs, [program], timed=True)
        return self._room().ticks[: len(program.steps) + 1].copy()

    def whole(self, inputs: Sequence[Array]) -> meta.Program:
        """The one program that computes a call on ``inputs``.

        Raises
        ------
        UsageError
            The call is cut into several.
        """
        return only(self.programs(inputs), self.metadata.programs)

    def save(self, path: str | Path) -> None:
        """Write the artefact to ``path`` and its metadata beside it.

        Raises
        ------
        OutputError
            It cannot be written there.
        """
        meta.write(Path(path), self._data, self.metadata)

    def _ordered(self, args: list[Any], named: Mapping[str, Any]) -> list[Any]:
        return ordered([spec.name for spec in self.metadata.program.inputs], args, named)

    def _checked(self, values: Sequence[Any]) -> list[Array]:
        first = self.metadata.program
        pairs = list(zip(values, first.inputs, strict=True))
        arrays = [as_array(value, spec.name) for value, spec in pairs]
        specs = [spec for _, spec in pairs]
        if first.batch and arrays[0].ndim:
            specs = [sized(spec, len(arrays[0])) for spec in specs]
        return [as_input(array, spec) for array, spec in zip(arrays, specs, strict=True)]

    def _run(
        self, inputs: Sequence[Array], programs: Sequence[meta.Program], *, timed: bool
    ) -> list[Any]:
        room = self._room()
        outputs = _outputs(programs)
        memory, ticks = address(room.memory), address(room.ticks)

        def call() -> None:
            at = 0
            for program in programs:
                tensors = [address(array[at:] if at else array) for array in (*inputs, *outputs)]
                self._library.run(
                    program.entry,
                    tensors,
                    memory=memory,
                    ticks=ticks,
                    threads=self.threads,
                    timed=timed,
                )
                at += program.batch

        if self.threads == 1:
            call()
        else:
            share(self._library, self.threads, call)
        return outputs

    def _room(self) -> "_Room":
        """Memory of the calling thread's calls."""
        room = getattr(self._rooms, "room", None)
        if room is None:
            room = self._rooms.room = _Room(self.metadata, self.threads)
        return room


class _Room:
    """What a call writes beside its outputs; kept from call to call."""

    def __init__(self, metadata: meta.Metadata, threads: int) -> None:
        size = metadata.call_bytes(threads)
        try:
            self.memory = zeros(size)
        except MemoryError as err:
            raise UsageError(
                f"{metadata.model.name}: a call on {threads} threads needs {size} bytes of memory, "
                "which the system does not give."
            ) from err
        steps = max(len(program.steps) for program in metadata.programs)
        self.ticks = np.zeros(steps + 1, np.int64)


def _outputs(programs: Sequence[meta.Program]) -> list[Array]:
    """Room for what ``programs`` give together."""
    batch = sum(program.batch for program in programs)
    specs = programs[0].outputs
    if len(programs) > 1:
        specs = tuple(sized(spec, batch) for spec in specs)
    return [np.empty(spec.shape, spec.dtype) for spec in specs]


def load(path: str | Path, threads: int = 1) -> Module:
    """Load an artefact.

    Everything is checked before any of its code runs.

    Parameters
    ----------
    path
        The shared library.
    threads
        Threads that share the work of each call: 1 to the number of CPUs that the process may use.

    Raises
    ------
    ArtefactError
        The file is missing, damaged, cut off, of another version, for another architecture, or for
        a CPU with features that this one lacks.
    OutputError
        There is no folder for temporary files.
    UsageError
        The number of threads is out of range.
    """
    path = Path(path)
    check_threads(threads)
    data = meta.contents(path)
    metadata = meta.parse(data, str(path))
    check_loadable(metadata, str(path))
    entries = [program.entry for program in metadata.programs]
    library = Library(path, entries, meta.header(data, str(path)))
    return Module(library, metadata, data, threads)


def check_loadable(metadata: meta.Metadata, name: str) -> None:
    """Raise unless this machine can execute the artefact.

    Raises
    ------
    ArtefactError
        What differs, and what to do.
    """
    if not fit_together(metadata.programs):
        raise ArtefactError(
            f"{name}: the metadata is damaged (its programs do not fit together). "
            "Compile the model again."
        )
    if not all(program.memory.fixed_bytes for program in metadata.programs):
        raise ArtefactError(
            f"{name}: does not say how much memory a call needs. Compile the model again."
        )
    target, machine = metadata.target, host()
    if target.gpu:
        raise ArtefactError(
            f"{name}: made for a GPU ({target.gpu}), and this loads code for CPUs. "
            "Load it with gsb_tvm.load_cuda, or compile the model for a CPU."
        )
    if target.arch != machine.arch:
        raise ArtefactError(
            f"{name}: made for {target.arch}, this machine is {machine.arch}. "
            f"Copy it to such a machine, or compile the model for {machine.arch}."
        )
    if machine.tiles_refused and tile_features(target.required_features):
        raise ArtefactError(
            f"{name}: made for {target.cpu} with AMX, which Linux refuses this process "
            f"({machine.tiles_refused}). Allow it arch_prctl(ARCH_REQ_XCOMP_PERM), or compile the "
            "model with -mattr=-amx-int8,-amx-tile."
        )
    if lacks := missing(machine, target.arch, target.required_features):
        raise ArtefactError(
            f"{name}: made for {target.cpu}, and this CPU lacks {', '.join(lacks)}. "
            "Compile the model with --target native, or for an older CPU."
        )
