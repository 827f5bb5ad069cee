"""A session of TVM's RPC on some board of a farm, and whose fault it is when it fails.

A trial here may be killed at any moment and the board may go at any moment. Neither costs more than
the trial: the board ends a session whose time is up or whose client has gone, and every wait here
has an end.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import tvm
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
    """The most seconds that a block with a :class:`Session` takes, for who would kill it."""
    return wait_s + timeout_s + GRACE_S + _CONNECT_S + _CLEAN_S


class Session:
    """A session on some board of a farm; a context manager for the main thread of a process.

    It uses the process's alarm (SIGALRM): a blocked call of TVM's can be ended by nothing else.

    Attributes
    ----------
    remote
        TVM's session.
    files
        What was uploaded and is to be removed.
    is_broken
        Whether the board has ended the session, or does not answer.
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
        self.remote: Any = None
        self._board: Address = tracker
        self._deadline = 0.0
        self.files: list[str] = []
        self.is_broken = False
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
        if self.is_broken:
            return
        with suppress(Expired, RuntimeError), alarm(_CLEAN_S):
            for name in self.files:
                self.remote.remove(name)
            self.remote.get_function("CloseRPCConnection")()

    @property
    def board(self) -> Address:
        """Where the session is."""
        return self._board

    def _begin(self, end: float) -> None:
        """Have the tracker name a board, when one is free, and open a session on it."""
        with connected(self._tracker, _CONNECT_S) as sock:
            sock.settimeout(max(_RETRY_S, end - time.monotonic()))
            host, port, match = ask(sock, TrackerCode.REQUEST, self._key, "", self._priority)
        with alarm(_CONNECT_S):
            self.remote = rpc.connect(host, port, match, self._timeout_s)
        self._board = (host, port)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Say of an error whose fault it is."""
        try:
            with alarm(self._deadline - time.monotonic()):
                yield
        except tvm.error.RPCSessionTimeoutError as err:
            self.is_broken = True
            raise SessionExpired(
                f"{text(self._board)} has ended a session that took {self._timeout_s:g} s"
            ) from err
        except tvm.error.RPCError as err:
            # The board's side has raised it and goes on.
            raise BoardLost(f"{text(self._board)}: {_words(err)}") from err
        except Expired as err:
            self.is_broken = True
            raise BoardLost(f"{text(self._board)} does not answer") from err
        except RuntimeError as err:  # of the connection: TVM has no kind for it
            self.is_broken = True
            if self._is_kernels and look(self._board) is not State.LOST:
                raise KernelFailed("the process that ran the kernel has crashed") from err
            raise BoardLost(f"{text(self._board)} has gone ({_words(err)})") from err

    @contextmanager
    def kernel(self) -> Iterator[None]:
        """Like :meth:`guard`, around code under test."""
        self._is_kernels = True
        with self.guard():
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
