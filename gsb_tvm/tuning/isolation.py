"""Calls in processes of their own: whatever one does, the others and the caller go on.

A kernel that nobody has tried may loop for ever, crash, or eat all memory, and so may the compiler
that makes it. Every call runs in a child of its own with limits of time and memory, forked from a
server that has imported TVM once (``multiprocessing``, "forkserver"). No child outlives its caller,
however that ends: Linux kills a child with its parent (prctl(2), PR_SET_PDEATHSIG), and the server
ends when the caller's end of a pipe closes.
"""

import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from types import ModuleType
from typing import Any

from gsb_tvm.dialect.errors import OutputError
from gsb_tvm.tuning.parents import die_with_parent

_SHORT_FOLDER = "/tmp"
_LONGEST_FOLDER = 70  # a socket's path has 107 bytes (unix(7)), of which names below take 35
_KILL_SECONDS = 5.0  # to wait for a process that was killed
_PRELOADED = ["gsb_tvm.tuning.preloaded", "gsb_tvm.tuning.children"]


class TrialError(Exception):
    """What a candidate did wrong: the text says what."""


class TrialLost(Exception):
    """The trial came to no result, through no fault of the candidate's."""


class TrialLate(TrialLost):
    """The trial took too long for a machine that may have been busy with something else."""


@dataclass(frozen=True)
class Failure:
    """Why a call has no value.

    ``is_lost`` where that says nothing about the candidate; ``is_late`` where it would, if it
    happened again.
    """

    reason: str
    is_lost: bool = False
    is_late: bool = False


@dataclass(frozen=True)
class Limits:
    """Of a call: seconds until it is killed, bytes of memory beyond what it begins with.

    None of memory for one that uses a GPU: the driver reserves addresses for all memory there is.
    """

    seconds: float
    memory_bytes: int | None


@dataclass
class _Child:
    number: int
    process: Any
    connection: Connection
    limits: Limits
    deadline: float


class Isolation:
    """Children that run functions of this package; a context manager that leaves none behind."""

    def __init__(self) -> None:
        # Threads of a server that forks would be lost in its children.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._children: list[_Child] = []

    def __enter__(self) -> "Isolation":
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            _kill(child.process)
        self._children.clear()

    def call(self, function: Callable[..., Any], arguments: Sequence[Any], limits: Limits) -> Any:
        """The value of one call, or its :class:`Failure`."""
        ((_, value),) = self.calls(function, [arguments], limits, 1)
        return value

    def calls(
        self,
        function: Callable[..., Any],
        arguments: Iterable[Sequence[Any]],
        limits: Limits,
        parallel: int,
    ) -> Iterator[tuple[int, Any]]:
        """Numbers of calls and their values or :class:`Failure`, as they end.

        Parameters
        ----------
        function
            Of a module; its arguments and value travel between processes.
        arguments
            Of each call; taken when there is room for it, so that a generator may wait and see.
        parallel
            Calls that run at the same time at most.
        """
        waiting = enumerate(arguments)
        is_open = True
        try:
            while is_open or self._children:
                while is_open and len(self._children) < parallel:
                    following = next(waiting, None)
                    if following is None:
                        is_open = False
                        break
                    self._start(*following, function, limits)
                yield from self._ended()
        finally:
            self.__exit__()

    def _start(
        self, number: int, arguments: Sequence[Any], function: Callable[..., Any], limits: Limits
    ) -> None:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_run, args=(sender, function, tuple(arguments), limits), daemon=True
        )
        try:
            with _without_main(), _short_folder():
                process.start()
        except OSError as err:
            raise OutputError(
                f"no process for trials can be started ({err}). Where that is for a path that is "
                "too long for a socket, set TMPDIR to a shorter folder."
            ) from err
        finally:
            sender.close()
        deadline = time.monotonic() + limits.seconds
        self._children.append(_Child(number, process, receiver, limits, deadline))

    def _ended(self) -> Iterator[tuple[int, Any]]:
        """Wait for the next ends, and give what came of them."""
        if not self._children:
            return
        first = min(child.deadline for child in self._children)
        ready = wait(
            [child.connection for child in self._children],
            timeout=max(0.0, first - time.monotonic()),
        )
        for child in list(self._children):
            # Time passes where a value is taken: what came meanwhile is not late.
            if child.connection in ready or child.connection.poll():
                value = _received(child)
            elif time.monotonic() >= child.deadline:
                value = Failure(f"no end within {child.limits.seconds:.0f} s")
            else:
                continue
            _kill(child.process)
            child.connection.close()
            self._children.remove(child)
            yield child.number, value


@contextmanager
def _short_folder() -> Iterator[None]:
    """Let multiprocessing make its socket in ``/tmp`` where a path elsewhere would be too long."""
    before = tempfile.tempdir
    if len(tempfile.gettempdir()) > _LONGEST_FOLDER and os.access(_SHORT_FOLDER, os.W_OK):
        tempfile.tempdir = _SHORT_FOLDER
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextmanager
def _without_main() -> Iterator[None]:
    """Let multiprocessing see no main module: each child would import the user's once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _received(child: _Child) -> Any:
    """What a child sent, or how it ended without a word."""
    try:
        return child.connection.recv()
    except (EOFError, OSError):
        child.process.join(_KILL_SECONDS)
    except Exception as err:
        return Failure(f"a value that cannot be read: {_summary(err)}")
    code = child.process.exitcode
    if code is None or code >= 0:
        return Failure(f"ended without a result (exit status {code})")
    if -code == signal.SIGALRM:  # of its own, behind what it waited for through no fault of its own
        return Failure("no end within its time")
    with suppress(ValueError):
        return Failure(f"killed by {signal.Signals(-code).name}")
    return Failure(f"killed by signal {-code}")


def _kill(process: Any) -> None:
    """End a child and whatever it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # a child that has not yet made its group
    process.join(_KILL_SECONDS)


def _run(
    sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], limits: Limits
) -> None:
    """What a child does."""
    _confine(limits)
    try:
        value = function(*arguments)
    except TrialError as err:
        value = Failure(str(err))
    except TrialLost as err:
        value = Failure(str(err), is_lost=True, is_late=isinstance(err, TrialLate))
    except MemoryError:
        value = Failure("out of memory")
    except Exception as err:
        value = Failure(_summary(err))
    try:
        sender.send(value)
    except Exception as err:
        sender.send(Failure(f"a value that cannot be sent: {_summary(err)}"))
    sender.close()
    os._exit(0)  # no destructor of a library that a kernel may have damaged


def _summary(err: Exception) -> str:
    lines = str(err).strip().splitlines() or [""]
    return f"{type(err).__name__}: {lines[-1][:200]}"


def _confine(limits: Limits) -> None:
    """Put limits on this process, which has just been forked."""
    os.setsid()  # no signal of the terminal's, and one group to kill
    die_with_parent()
    # The server ends when nobody holds this pipe any more, and each child begins with a copy.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    if os.getppid() == 1:  # the server ended before
        os._exit(1)
    if limits.memory_bytes is not None:
        with open("/proc/self/statm", encoding="ascii") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        most = now + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    seconds = int(limits.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
