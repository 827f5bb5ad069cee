"""A board of a farm as the machine that a trial runs on: a session of TVM's RPC.

A trial here may be killed at any moment and the board may go at any moment. Neither costs more than
the trial: the board ends a session whose time is up or whose client has gone, and every wait here
has an end.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
import tvm
from numpy.typing import NDArray
from tvm import rpc
from tvm.rpc.base import TrackerCode

from gsb_tvm.tuning.alarm import Expired, alarm
from gsb_tvm.tuning.farm import Address, State, ask, connected, look, reason, text
from gsb_tvm.tuning.isolation import TrialError, TrialLate, TrialLost

WAIT_S = 60.0
"""How long a trial waits for a board, in seconds."""

GRACE_S = 5.0
"""How long after a session's time a client waits for word that it has ended, in seconds."""

_CONNECT_S = 10.0
_RETRY_S = 0.5
_CLEAN_S = 2.0


class BoardLost(TrialLost):
    """The trial came to no result, and that says nothing of the kernel: try it again."""


class SessionExpired(BoardLost, TrialLate):
    """The board answers, and has ended the session because its time was up."""


class KernelFailed(TrialError):
    """The kernel raised an error or crashed; the board is well."""


def longest_s(timeout_s: float, wait_s: float = WAIT_S) -> float:
    """The most seconds that a block with a :class:`RemoteMachine` takes, for who would kill it."""
    return wait_s + timeout_s + GRACE_S + _CONNECT_S + _CLEAN_S


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


class RemoteMachine:
    """A session on some board of a farm; a context manager for the main thread of a process.

    It uses the process's alarm (SIGALRM): a blocked call of TVM's can be ended by nothing else.
    """

    def __init__(
        self,
        tracker: Address,
        key: str,
        timeout_s: float,
        *,
        wait_s: float = WAIT_S,
        priority: int = 1,
    ) -> None:
        """Ask nobody yet.

        Parameters
        ----------
        tracker
            Address of TVM's tracker.
        key
            Kind of board.
        timeout_s
            How long the session may last, in seconds; then the board kills what runs in it.
        wait_s
            How long to wait for a board, in seconds; also while the tracker is away.
        priority
            Requests with a higher one are served first.
        """
        self._tracker = tracker
        self._key = key
        self._timeout_s = timeout_s
        self._wait_s = wait_s
        self._priority = priority
        self._session: Any = None
        self._board: Address = tracker
        self._deadline = 0.0
        self._files: list[str] = []
        self._is_broken = False
        self._is_kernels = False  # whether code under test has run, which may have done damage

    def __enter__(self) -> Self:
        """Begin a session.

        Raises
        ------
        BoardLost
            No board came free in time.
        """
        end = time.monotonic() + self._wait_s
        while True:
            try:
                self._begin(end)
                break
            except (Expired, OSError, RuntimeError) as err:
                if time.monotonic() + _RETRY_S >= end:
                    raise BoardLost(
                        f'no board with the key "{self._key}" at the tracker {text(self._tracker)} '
                        f"within {self._wait_s:.0f} s ({_words(err)})"
                    ) from err
            # A board that the tracker does not yet know to be gone, or a tracker that starts anew.
            time.sleep(_RETRY_S)
        self._deadline = time.monotonic() + self._timeout_s + GRACE_S
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Remove the files and end the session; a board that has gone is left alone."""
        if self._is_broken:
            return
        with suppress(Expired, RuntimeError), alarm(_CLEAN_S):
            for name in self._files:
                self._session.remove(name)
            self._session.get_function("CloseRPCConnection")()

    @property
    def board(self) -> Address:
        """Where the session is."""
        return self._board

    def cpu(self) -> tuple[str, str]:
        """LLVM's names for the board's CPU and system, such as cortex-a72, aarch64-linux-gnu.

        Both are empty where the board's TVM is without a compiler.

        Raises
        ------
        BoardLost
            The board has gone.
        """
        names = ("target.llvm_get_system_cpu", "target.llvm_get_system_triple")
        with self._guard():
            try:
                cpu, triple = (str(self._session.get_function(name)()) for name in names)
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
        with self._guard():
            self._session.upload(bytearray(path.read_bytes()), name)
        self._files.append(name)
        with self._kernel():
            return RemoteFunction(self._session.load_module(name), self._kernel)

    def tensor(self, array: NDArray[Any]) -> Any:
        """A copy of an array on the board.

        Raises
        ------
        BoardLost
            The board went, or has no room for it.
        """
        with self._guard():
            return tvm.runtime.tensor(array, self._session.cpu())

    def numpy(self, tensor: Any) -> NDArray[Any]:
        """A copy of a remote tensor here.

        Raises
        ------
        KernelFailed
            The session's process has crashed since a kernel ran in it.
        BoardLost
            The board went.
        """
        with self._guard():
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
        with self._kernel():
            for count, sets in parts:
                timed = function.module.time_evaluator(
                    "main", self._session.cpu(), number=count, repeat=1
                )
                total += sum(count * float(timed(*tensors).mean) for tensors in sets)
        return total / calls

    def _begin(self, end: float) -> None:
        """Have the tracker name a board, when one is free, and open a session on it."""
        with connected(self._tracker, _CONNECT_S) as sock:
            sock.settimeout(max(_RETRY_S, end - time.monotonic()))
            host, port, match = ask(sock, TrackerCode.REQUEST, self._key, "", self._priority)
        with alarm(_CONNECT_S):
            self._session = rpc.connect(host, port, match, self._timeout_s)
        self._board = (host, port)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Say of an error whose fault it is."""
        try:
            with alarm(self._deadline - time.monotonic()):
                yield
        except tvm.error.RPCSessionTimeoutError as err:
            self._is_broken = True
            raise SessionExpired(
                f"{text(self._board)} has ended a session that took {self._timeout_s:g} s"
            ) from err
        except tvm.error.RPCError as err:
            # The board's side has raised it and goes on.
            raise BoardLost(f"{text(self._board)}: {_words(err)}") from err
        except Expired as err:
            self._is_broken = True
            raise BoardLost(f"{text(self._board)} does not answer") from err
        except RuntimeError as err:  # of the connection: TVM has no kind for it
            self._is_broken = True
            if self._is_kernels and look(self._board) is not State.LOST:
                raise KernelFailed("the process that ran the kernel has crashed") from err
            raise BoardLost(f"{text(self._board)} has gone ({_words(err)})") from err

    @contextmanager
    def _kernel(self) -> Iterator[None]:
        """Like :meth:`_guard`, around code under test."""
        self._is_kernels = True
        with self._guard():
            try:
                yield
            except tvm.error.RPCSessionTimeoutError:  # an RPCError too
                raise
            except tvm.error.RPCError as err:
                raise KernelFailed(_words(err)) from err


def _words(err: Exception) -> str:
    """What an error says, as one line."""
    if isinstance(err, OSError):
        return reason(err)
    said = str(err).partition("Error caught from RPC call:")
    return " ".join((said[2] or said[0]).split())[:300] or type(err).__name__
