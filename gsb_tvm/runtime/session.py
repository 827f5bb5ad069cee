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
from gsb_tvm.runtime.elf import ALIGNMENT
from gsb_tvm.runtime.outfile import scratch_folder
from gsb_tvm.targets.host import host, missing

_KDLCPU, _POOLED = 1, 2  # dlpack.h; tvm/runtime/memory/memory_manager.h

Array = NDArray[Any]


class Module:
    """A compiled model, callable from any number of threads at once.

    Attributes
    ----------
    metadata
        What the artefact says about itself.
    """

    def __init__(self, library: Any, metadata: meta.Metadata, data: meta.Contents) -> None:
        self.metadata = metadata
        self._library = library
        self._data = data
        self._creating = threading.Lock()
        self._machines = threading.local()

    @property
    def report(self) -> tuple[meta.Layer, ...]:
        """One row for each matmul-like operator: packed or float, and why."""
        return self.metadata.layers

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run the model.

        Parameters
        ----------
        *args
            The inputs in order, or one mapping from names to inputs; each a NumPy array, a torch
            tensor on the CPU, or any object with ``__dlpack__`` on the CPU. Shapes and dtypes as
            in ``metadata.inputs``.
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
            An input is missing, unknown, or has another rank, shape or dtype.
        """
        values = self._ordered(list(args), named)
        arrays = [
            as_input(value, spec) for value, spec in zip(values, self.metadata.inputs, strict=True)
        ]
        outputs = self.run(arrays)
        if any(_is_torch(value) for value in values):
            outputs = [sys.modules["torch"].from_numpy(array) for array in outputs]
        if len(outputs) == 1:
            return outputs[0]
        return {spec.name: out for spec, out in zip(self.metadata.outputs, outputs, strict=True)}

    def run(self, inputs: Sequence[Array]) -> list[Any]:
        """Run on checked, contiguous arrays in the order of ``metadata.inputs``."""
        import tvm_ffi

        main = self._main()
        result = main(*(tvm_ffi.from_dlpack(_aligned(array)) for array in inputs))
        fields = [result] if hasattr(result, "dtype") else list(result)
        return [np.array(np.from_dlpack(field)) for field in fields]

    def save(self, path: str | Path) -> None:
        """Write the artefact to ``path`` and its metadata beside it.

        Raises
        ------
        OutputError
            It cannot be written there.
        """
        meta.write(Path(path), self._data, self.metadata)

    def _ordered(self, args: list[Any], named: Mapping[str, Any]) -> list[Any]:
        names = [spec.name for spec in self.metadata.inputs]
        if len(args) == 1 and isinstance(args[0], Mapping):
            named, args = {**args[0], **named}, []
        expected = f"expected {len(names)}: {', '.join(names)}"
        if len(args) > len(names):
            raise UsageError(f"{len(args)} inputs given, {expected}.")
        given = {**dict(zip(names, args, strict=False)), **named}
        if twice := set(names[: len(args)]) & set(named):
            raise UsageError(f'input "{min(twice)}" is given twice.')
        if unknown := [str(name) for name in given if name not in names]:
            raise UsageError(f'no input is called "{unknown[0]}", {expected}.')
        if absent := [name for name in names if name not in given]:
            raise UsageError(f'input "{absent[0]}" is not given, {expected}.')
        return [given[name] for name in names]

    def _main(self) -> Any:
        """The entry function of this thread's virtual machine: one shared by threads crashes."""
        main = getattr(self._machines, "main", None)
        if main is None:
            with self._creating:
                machine = self._library["vm_load_executable"]()
                machine["vm_initialization"](_KDLCPU, 0, _POOLED)
                main = self._machines.main = machine["main"]
        return main


def load(path: str | Path) -> Module:
    """Load an artefact.

    Everything is checked before any of its code runs.

    Raises
    ------
    ArtefactError
        The file is missing, damaged, cut off, of another version, for another architecture, or for
        a CPU with features that this one lacks.
    OutputError
        There is no folder for temporary files.
    """
    path = Path(path)
    data = meta.contents(path)
    metadata = meta.parse(data, str(path))
    check_loadable(metadata, str(path))
    return Module(_load_library(path), metadata, data)


def check_loadable(metadata: meta.Metadata, name: str) -> None:
    """Raise unless this machine and the installed runtime can execute the artefact.

    Raises
    ------
    ArtefactError
        What differs, and what to do.
    """
    target, machine = metadata.target, host()
    if target.arch != machine.arch:
        raise ArtefactError(
            f"{name}: made for {target.arch}, this machine is {machine.arch}. "
            f"Copy it to such a machine, or compile the model for {machine.arch}."
        )
    if lacks := missing(machine, target.arch, target.required_features):
        raise ArtefactError(
            f"{name}: made for {target.cpu}, and this CPU lacks {', '.join(lacks)}. "
            "Compile the model with --target native, or for an older CPU."
        )
    made, here = metadata.versions, meta.versions()
    for package, was, now, parts in (
        ("apache-tvm", made.tvm, here.tvm, 2),
        ("apache-tvm-ffi", made.tvm_ffi, here.tvm_ffi, 3),
    ):
        # Within so many parts of the version number the binary interface stays the same.
        if was.split(".")[:parts] != now.split(".")[:parts]:
            raise ArtefactError(
                f"{name}: made with {package} {was}, installed is {now}. Compile the model again, "
                f'or pip install "{package}=={was}".'
            )


def as_input(value: Any, spec: meta.Tensor) -> Array:
    """Take ``value`` as a C-contiguous array of the dtype and shape of ``spec``.

    Raises
    ------
    UsageError
        It is not an array on the CPU, or its dtype, rank or shape differ.
    """
    array = _as_array(value, spec.name)
    if array.dtype != np.dtype(spec.dtype):
        raise UsageError(
            f'input "{spec.name}" is {array.dtype}, expected {spec.dtype}. Convert it first.'
        )
    if array.ndim != len(spec.shape):
        raise UsageError(
            f'input "{spec.name}" has {array.ndim} dimensions {array.shape}, '
            f"expected {len(spec.shape)}: {spec.shape}."
        )
    if array.shape != spec.shape:
        raise UsageError(
            f'input "{spec.name}" has shape {array.shape}, expected {spec.shape}. '
            "Compile the model for another batch or image size if that is what you need."
        )
    return np.asarray(array, order="C")


def _as_array(value: Any, name: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    try:
        if _is_torch(value):
            return np.asarray(value.detach().numpy())
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise UsageError(
            f'input "{name}" cannot be read as an array on the CPU ({reason}). '
            "Move it to the CPU first."
        ) from err
    raise UsageError(
        f'input "{name}" is a {type(value).__name__}, expected a NumPy array, a torch tensor, or '
        "an object with __dlpack__."
    )


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _aligned(array: Array) -> Array:
    """``array`` itself, or a copy where it is read-only or not aligned, which ends the process."""
    if array.ctypes.data % ALIGNMENT == 0 and array.flags.writeable:
        return array
    room = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _load_library(path: Path) -> Any:
    import tvm  # noqa: F401  (brings the virtual machine that the library needs)
    import tvm_ffi

    # The dynamic loader takes a file for loaded when it knows the name: a new artefact under the
    # name of an old one would give the old code. A link has a name of its own.
    with scratch_folder() as folder:
        link = folder / "model.so"
        link.symlink_to(path.resolve())
        try:
            return tvm_ffi.load_module(link, keep_module_alive=False)
        except Exception as err:
            reason = str(err).splitlines()[0] if str(err) else type(err).__name__
            raise ArtefactError(f"{path}: cannot be loaded ({reason}).") from err
