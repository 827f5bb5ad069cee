"""An artefact's code in this process: the loaded library and the functions of its programs.

The library needs the C library and libm, nothing of TVM; only a call on several threads starts
them through TVM's pool (:mod:`gsb_tvm.runtime.workers`).
"""

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path

from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.runtime.metadata import SYMBOL, WEIGHTS
from gsb_tvm.runtime.outfile import scratch_folder

_LAUNCH = "__TVMBackendParallelLaunch"  # where compiled code looks for what starts its threads


class Library:
    """A loaded artefact; leaves the process with its last reference."""

    def __init__(self, path: Path, entries: Sequence[str], header: bytes) -> None:
        """Load the library at ``path``, whose programs are called ``entries``.

        ``header`` is that of its metadata (:func:`gsb_tvm.runtime.metadata.header`).

        Raises
        ------
        ArtefactError
            The dynamic loader refuses it, or it is another one.
        """
        # The loader takes a file for loaded when it knows the name: a new artefact under the name
        # of an old one would give the old code. A link has a name of its own.
        with scratch_folder() as folder:
            link = folder / "model.so"
            link.symlink_to(path.resolve())
            try:
                self._handle = ctypes.CDLL(str(link))
                self._run = {entry: self._handle[f"{entry}_run"] for entry in entries}
                weights = ctypes.c_char.in_dll(self._handle, WEIGHTS)
                loaded = (ctypes.c_char * len(header)).in_dll(self._handle, SYMBOL).raw
            except (OSError, AttributeError, ValueError) as err:
                raise ArtefactError(f"{path}: cannot be loaded ({err}).") from err
        if loaded != header:
            raise ArtefactError(f"{path}: was replaced while it was loaded. Load it again.")
        self.weights = ctypes.addressof(weights)
        # Not where the interpreter ends: threads that it does not wait for may be in a call.
        weakref.finalize(self, _unload, self._handle._handle).atexit = False

    def run(
        self,
        entry: str,
        tensors: Sequence[int],
        *,
        memory: int,
        ticks: int,
        threads: int,
        timed: bool,
    ) -> None:
        """Run a program; every argument that is an address belongs to the caller."""
        addresses = (*tensors, memory, self.weights, ticks)
        run = self._run[entry]
        run(*map(ctypes.c_void_p, addresses), ctypes.c_int(threads), ctypes.c_int(timed))

    def start_threads_with(self, launch: int) -> None:
        """Let calls on several threads start them by the function at address ``launch``."""
        ctypes.c_void_p.in_dll(self._handle, _LAUNCH).value = launch


def _unload(handle: int) -> None:
    ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle))
