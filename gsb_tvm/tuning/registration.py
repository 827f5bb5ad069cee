"""How a board's server speaks to its tracker, where TVM's own way is not enough."""

import socket
import time
from collections.abc import Callable
from typing import Any

from gsb_tvm.tuning.farm import Address, connected, reason, text

_RETRY_S = 1.0
_SILENT_S = 30


class Introduction:
    """Sends to the tracker what TVM's server does, and what the board is, for who lists boards."""

    def __init__(self, send: Callable[[socket.socket, Any], None], machine: str) -> None:
        self._send, self._machine = send, machine

    def __call__(self, sock: socket.socket, message: Any) -> None:
        """Send a message, as TVM's ``sendjson`` does."""
        from tvm.rpc.base import TrackerCode

        code, *rest = message
        if code == TrackerCode.UPDATE_INFO:
            rest = [{**rest[0], "machine": self._machine}]
        self._send(sock, [code, *rest])


class Reach:
    """Connects to the tracker, at most once in :data:`_RETRY_S`; TVM's loop comes back."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._next_try = 0.0
        self._is_lost = False

    def __call__(self, tracker: Address) -> socket.socket:
        """Connect, as TVM's ``connect_with_retry`` does.

        Raises
        ------
        OSError
            The tracker is away.
        """
        time.sleep(max(0.0, self._next_try - time.monotonic()))
        self._next_try = time.monotonic() + _RETRY_S
        try:
            # A tunnel takes a connection whoever is at its other end.
            with connected(tracker, _SILENT_S):
                sock = socket.create_connection(tracker, _SILENT_S)
        except OSError as err:
            if not self._is_lost:
                self._say(f"waiting for the tracker at {text(tracker)} ({reason(err)})")
            self._is_lost = True
            raise
        if self._is_lost:
            self._say(f"the tracker at {text(tracker)} is there")
        self._is_lost = False
        sock.settimeout(None)
        keep_alive(sock)
        return sock


def keep_alive(sock: socket.socket) -> None:
    """Let a connection fail whose other end has not answered for half a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENT_S // 3)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _SILENT_S // 6)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_S * 1000)
