"""TVM's RPC server and tracker in the foreground: bound to few ports, and gone when they end.

TVM runs both in a worker process behind a handle. Run here in this process, a server is one process
that forks for each session; a session ends with it, however it ends.
"""

import errno
import ipaddress
import logging
import multiprocessing
import os
import resource
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.targets.host import cpu_name
from gsb_tvm.tuning import gpu_service
from gsb_tvm.tuning.farm import Address, reason, text
from gsb_tvm.tuning.parents import die_with_parent
from gsb_tvm.tuning.registration import Introduction, Reach, keep_alive

_BACKLOG = 128
_FIRST_WORD_S = 3.0


def take_port(host: str, port: int, port_end: int) -> socket.socket:
    """Take the first free port from ``port`` to ``port_end``, both included.

    Callers are refused until :func:`serve` or :func:`track` is ready for them.

    Raises
    ------
    UsageError
        The host is no address of this machine, all ports are taken, or may not be used.
    """
    if not 0 < port <= port_end < 65536:
        raise UsageError(f"ports {port} to {port_end} are no range within 1 to 65535.")
    try:
        family, kind, _, _, _ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as err:
        raise UsageError(f'"{host}" is no address of this machine ({reason(err)}).') from err
    sock = socket.socket(family, kind)
    try:
        # A port whose last connections wind down can be used again at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(sock)  # inherited by the connections that come: a client may lose its power
        _bind(sock, host, port, port_end)
    except BaseException:
        sock.close()
        raise
    return sock


def where(sock: socket.socket) -> str:
    """Address of a socket here."""
    return text(sock.getsockname()[:2])


def is_open_to_others(sock: socket.socket) -> bool:
    """Whether a socket can be reached from other machines."""
    return not ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def serve(
    sock: socket.socket, key: str, tracker: Address | None, say: Callable[[str], None]
) -> None:
    """Serve sessions, one at a time, until SIGINT or SIGTERM.

    A kernel that crashes ends TVM's loop with an exception; here the next session is served. While
    the tracker is away, it is asked for again and again.

    Parameters
    ----------
    sock
        From :func:`take_port`; taken over.
    key
        The name under which tuners ask for such a board.
    tracker
        Where to register, or None: clients then need the address.
    say
        Called with a line when it is ready, and about the tracker and sessions that were lost.
    """
    from tvm.rpc import base, server

    server.logger.setLevel(logging.ERROR)  # else four lines for each session
    # TVM's own comes back at once where a tunnel takes the connection and drops it, and waits for
    # ever on a tracker whose machine has gone.
    base.connect_with_retry = Reach(say)
    _tie_children()
    chip = gpu_service.chip_here()
    base.sendjson = Introduction(base.sendjson, chip.text if chip else cpu_name())
    gpu_service.offer()
    home = os.getcwd()
    farm = f", tracker {text(tracker)}" if tracker else ", without a tracker"
    with (
        _until_stopped(),
        _Listener(fileno=sock.detach()) as listener,
        _scratch_folder(where(listener)),
    ):
        listener.listen(_BACKLOG)
        gpu = f" with {chip.text}" if chip else ""
        say(f"serving {key} on {where(listener)}{gpu}{farm}; Ctrl-C ends it")
        port = listener.getsockname()[1]
        while True:
            try:
                server._listen_loop(listener, port, key, tracker, None, None)
            except Exception as err:
                say(f"a session was lost: {err}")
            os.chdir(home)  # a session's folder was the current one


def track(sock: socket.socket, say: Callable[[str], None]) -> None:
    """Run TVM's tracker until SIGINT or SIGTERM.

    Parameters
    ----------
    sock
        From :func:`take_port`; closed at the end.
    say
        Called with a line when it is ready.

    Raises
    ------
    ToolchainError
        The package tornado is missing.
    """
    try:
        from tvm.rpc import base, tracker
    except ImportError as err:
        raise ToolchainError(
            'the tracker needs the package tornado. Run: pip install "gsb-tvm[tune]"'
        ) from err

    # TVM's tracker turns in circles when it has no file descriptor for a connection.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    tracker.logger.setLevel(logging.ERROR)
    with _until_stopped(), sock:
        sock.listen(_BACKLOG)
        say(f"tracking boards on {where(sock)}; Ctrl-C ends it")
        tracker._tracker_server(sock, base.random_key("tracker"))


class _Listener(socket.socket):
    """Drops a caller that says nothing: TVM would listen to it for ever, and to nobody else."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection on which something has come.

        Raises
        ------
        OSError
            Nothing has.
        """
        conn, address = super().accept()
        if not select.select([conn], [], [], _FIRST_WORD_S)[0]:
            conn.close()
            raise OSError("a silent caller")
        return conn, address


def _bind(sock: socket.socket, host: str, port: int, port_end: int) -> None:
    for number in range(port, port_end + 1):
        try:
            sock.bind((host, number))
            return
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise UsageError(
                    f"cannot listen on {text((host, number))} ({reason(err)})."
                ) from err
    which = f"port {port} is" if port == port_end else f"ports {port} to {port_end} are all"
    raise UsageError(f"{which} taken on {host}. Name others with --port and --port-end.")


@contextmanager
def _scratch_folder(name: str) -> Iterator[None]:
    """Let sessions have their files in a folder that the next server of this address empties.

    A server that is killed leaves the files of its session.
    """
    path = Path(tempfile.gettempdir(), f"gsb-tvm-board-{os.getuid()}-{name}")
    shutil.rmtree(path, ignore_errors=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:  # of another user's making, who may not choose where files lie
        path = Path(tempfile.mkdtemp())
    tempfile.tempdir = str(path)
    try:
        yield
    finally:
        tempfile.tempdir = None
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _until_stopped() -> Iterator[None]:
    """End the block at SIGINT or SIGTERM, and all processes under this one with it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        # No other exception gets through the event loop of the tracker.
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _kill_children()


def _kill_children() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    for session in multiprocessing.active_children():
        session.join()


def _tie_children() -> None:
    """Let a child be killed when this process dies, and die quietly of whatever signal comes.

    A kernel that never returns would ignore a handler of Python's, and TVM's own for crashes
    prints a page for each.
    """
    server = os.getpid()

    def tie() -> None:
        die_with_parent()
        if os.getppid() != server:  # it died before the call
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGSEGV):
            signal.signal(number, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    os.register_at_fork(after_in_child=tie)
