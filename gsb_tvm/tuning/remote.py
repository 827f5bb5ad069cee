"""The CPU of a farm's board as the machine that a trial runs on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import tvm
from numpy.typing import NDArray

from gsb_tvm.tuning.sessions import Session


class RemoteFunction:
    """The function "main" of a library on the board; called with remote tensors in order."""

    def __init__(self, module: Any, guard: Callable[[], Any]) -> None:
        self.module = module
        self._main = module["main"]
        self._guard = guard

    def __call__(self, *tensors: Any) -> None:
        """Run it once.

        Raises
        ------
        KernelFailed
            It raised an error, or ended the session's process.
        BoardLost
            The board went, or the session's time was up.
        """
        with self._guard():
            self._main(*tensors)


class RemoteMachine(Session):
    """A session on some board of a farm that runs kernels on the board's CPU."""

    def cpu(self) -> tuple[str, str]:
        """LLVM's names for the board's CPU and system, such as cortex-a72, aarch64-linux-gnu.

        Both are empty where the board's TVM is without a compiler.

        Raises
        ------
        BoardLost
            The board has gone.
        """
        names = ("target.llvm_get_system_cpu", "target.llvm_get_system_triple")
        with self.guard():
            try:
                cpu, triple = (str(self.remote.get_function(name)()) for name in names)
            except AttributeError:
                return "", ""
        return cpu, triple

    def load(self, path: Path) -> RemoteFunction:
        """Upload a shared library, and return its function "main".

        Raises
        ------
        KernelFailed
            The board cannot load it.
        BoardLost
            The board went.
        """
        name = f"{uuid4().hex}.so"
        with self.guard():
            self.remote.upload(bytearray(path.read_bytes()), name)
        self.files.append(name)
        with self.kernel():
            return RemoteFunction(self.remote.load_module(name), self.kernel)

    def tensor(self, array: NDArray[Any]) -> Any:
        """A copy of an array on the board.

        Raises
        ------
        BoardLost
            The board went, or has no room for it.
        """
        with self.guard():
            return tvm.runtime.tensor(array, self.remote.cpu())

    def numpy(self, tensor: Any) -> NDArray[Any]:
        """A copy of a remote tensor here.

        Raises
        ------
        KernelFailed
            The session's process has crashed since a kernel ran in it.
        BoardLost
            The board went.
        """
        with self.guard():
            return np.asarray(tensor.numpy())

    def seconds(
        self, function: RemoteFunction, argument_sets: Sequence[Sequence[Any]], calls: int
    ) -> float:
        """Mean seconds of a call, by the board's own clock.

        The sets share the calls, each set's one after another and after one that is not counted:
        what a call reads is in the board's caches as far as it fits.

        Parameters
        ----------
        function
            From :meth:`load`.
        argument_sets
            Remote tensors of a call, one or more times.
        calls
            How many calls to average; where there are fewer than sets, the last sets get none.

        Raises
        ------
        KernelFailed
            A call raised an error, or ended the session's process.
        BoardLost
            The board went, or the session's time was up.
        """
        share, more = divmod(calls, len(argument_sets))
        parts = [(share + 1, argument_sets[:more])]
        parts += [(share, argument_sets[more:])] if share else []
        total = 0.0
        with self.kernel():
            for count, sets in parts:
                timed = function.module.time_evaluator(
                    "main", self.remote.cpu(), number=count, repeat=1
                )
                total += sum(count * float(timed(*tensors).mean) for tensors in sets)
        return total / calls
