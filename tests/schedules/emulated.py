"""Kernels for a CPU that is not this machine's, called as TVM's own libraries are."""

import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gsb_tvm.runtime import emulate
from gsb_tvm.runtime.link import link_program
from gsb_tvm.targets import Profile

Array = npt.NDArray[Any]

RUNNER = Path(__file__).with_name("emulated.c")
TIMEOUT_S = 120
CODES = {"i": 0, "u": 1, "f": 2}  # of dlpack.h, by NumPy's letter


class Emulated:
    """A library of one function, ``main``, as a static program under qemu-user.

    The program is linked when the function is first asked for and started for each call.
    """

    def __init__(self, library: Any, profile: Profile) -> None:
        self.mod, self.profile = library.mod, profile

    def __getitem__(self, name: str) -> "Emulated":
        assert name == "main"
        return self

    @cached_property
    def _folder(self) -> Any:
        return tempfile.TemporaryDirectory(prefix="kernel-")

    @cached_property
    def _command(self) -> list[str]:
        prefix = emulate.command(self.profile)
        assert prefix is not None
        folder = Path(self._folder.name)
        code, program = folder / "kernel.o", folder / "program"
        self.mod.write_to_file(str(code), "o")
        link_program(self.profile, [RUNNER, code], program, folder)
        code.unlink()
        return [*prefix, str(program)]

    def __call__(self, *tensors: Any) -> None:
        """Run on tensors of TVM, which receive what the function wrote."""
        arrays = [tensor.numpy() for tensor in tensors]
        sent = b"".join([np.int64(len(arrays)).tobytes(), *map(_message, arrays)])
        done = subprocess.run(
            self._command, input=sent, capture_output=True, timeout=TIMEOUT_S, check=False
        )
        assert done.returncode == 0, (done.returncode, done.stderr[-500:])
        at = 0
        for tensor, array in zip(tensors, arrays, strict=True):
            data = np.frombuffer(done.stdout, array.dtype, array.size, at)
            tensor.copyfrom(data.reshape(array.shape))
            at += array.nbytes
        assert at == len(done.stdout)


def _message(array: Array) -> bytes:
    head = [CODES[array.dtype.kind], 8 * array.itemsize, array.ndim, *array.shape]
    return np.array(head, np.int64).tobytes() + array.tobytes()
