"""A farm of boards as its tracker knows it: TVM's tracker, spoken to within limits of time."""

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gsb_tvm.dialect.errors import UsageError

Address = tuple[str, int]
"""Name or number of a host, and a port."""

ANSWER_S = 5.0
"""How long a tracker may take to answer what it knows without waiting, in seconds."""

LOOK_S = 2.0
"""How long a free board may take to refuse a stranger, in seconds."""

# No server's key: one that a tracker knows adds a colon and a random number to its own.
_STRANGER = b"client:gsb-tvm-looks-who-is-there"


class State(StrEnum):
    """What a board's server does."""

    FREE = "free"
    BUSY = "busy"
    LOST = "no answer"


@dataclass(frozen=True)
class Board:
    """A board's server, under the address that the tracker gives to clients.

    ``machine`` is its CPU or GPU, for people; empty where it does not say.
    """

    key: str
    address: Address
    machine: str = ""


@dataclass(frozen=True)
class Queue:
    """Boards of one key, how many of them wait for work, and how many requests wait for a board."""

    key: str
    boards: int
    free: int
    waiting: int


@dataclass(frozen=True)
class Farm:
    """All that a tracker knows, sorted."""

    boards: tuple[Board, ...]
    queues: tuple[Queue, ...]


def text(address: Address) -> str:
    """An address as it is typed."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def connected(tracker: Address, timeout_s: float) -> Iterator[socket.socket]:
    """A connection to the tracker that has shown to be one.

    Raises
    ------
    OSError
        Nobody answers there in time, or something that is no tracker.
    """
    from tvm.rpc import base

    with socket.create_connection(tracker, timeout_s) as sock:
        sock.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        (magic,) = struct.unpack("<i", base.recvall(sock, 4))
        if magic != base.RPC_TRACKER_MAGIC:
            raise OSError("something else than a tracker answers")
        yield sock


def ask(sock: socket.socket, *message: Any) -> Any:
    """Send a message to a tracker and return its answer.

    Raises
    ------
    OSError
        The connection broke, or the answer did not come in the socket's limit of time.
    """
    from tvm.rpc import base

    base.sendjson(sock, list(message))
    code, *answer = base.recvjson(sock)
    if code != base.TrackerCode.SUCCESS:
        raise OSError(f"the tracker refuses with code {code}")
    return answer[0]


def farm(tracker: Address) -> Farm:
    """Ask a tracker for all that it knows.

    Raises
    ------
    UsageError
        Nobody answers at the address, or something that is no tracker.
    """
    from tvm.rpc.base import TrackerCode

    try:
        with connected(tracker, ANSWER_S) as sock:
            known = ask(sock, TrackerCode.SUMMARY)
    except OSError as err:
        raise UsageError(
            f"no tracker answers at {text(tracker)} ({reason(err)}). "
            "Start one with gsb-tvm device track, or see that its tunnel stands."
        ) from err
    boards = tuple(
        sorted(
            (
                Board(
                    info["key"].removeprefix("server:"),
                    (info["addr"][0], info["addr"][1]),
                    str(info.get("machine", "")),
                )
                for info in known["server_info"]
            ),
            key=lambda board: (board.key, board.address),
        )
    )
    queued = known["queue_info"]
    return Farm(boards, tuple(_queues(boards, queued)))


def require(tracker: Address, key: str) -> int:
    """Return how many boards a tracker has for a key.

    Raises
    ------
    UsageError
        No tracker answers, or no board has come to it under this key.
    """
    known = farm(tracker)
    count = sum(board.key == key for board in known.boards)
    if not count:
        keys = ", ".join(sorted({board.key for board in known.boards})) or "none at all"
        raise UsageError(
            f'the tracker at {text(tracker)} has no board with the key "{key}"; its keys: {keys}. '
            f"On a board: gsb-tvm device serve --tracker {text(tracker)} --key {key}."
        )
    return count


def look(board: Address, timeout_s: float = LOOK_S) -> State:
    """Ask a board's server, without taking a turn of it, whether it is there.

    A free server refuses a key that is not its own. One that is busy, or waits for its tracker,
    leaves the question unread, and the system it runs on holds the connection open for it. Where no
    server runs, its system or the tunnel to it ends the connection.
    """
    from tvm.rpc import base

    try:
        with socket.create_connection(board, timeout_s) as sock:
            sock.sendall(struct.pack("<ii", base.RPC_MAGIC, len(_STRANGER)) + _STRANGER)
            try:
                (code,) = struct.unpack("<i", base.recvall(sock, 4))
            except TimeoutError:
                return State.BUSY
    except OSError:
        return State.LOST
    return State.FREE if code == base.RPC_CODE_MISMATCH else State.LOST


def states(boards: tuple[Board, ...]) -> list[State]:
    """Look at many boards at once, in their order."""
    if not boards:
        return []
    with ThreadPoolExecutor(min(32, len(boards))) as pool:
        return list(pool.map(lambda board: look(board.address), boards))


def reason(err: OSError) -> str:
    """An error of the system's, as the end of a sentence."""
    words = err.strerror or str(err)
    return words[:1].lower() + words[1:]


def _queues(boards: tuple[Board, ...], queued: dict[str, dict[str, int]]) -> Iterator[Queue]:
    for key in sorted({board.key for board in boards} | queued.keys()):
        count = sum(board.key == key for board in boards)
        found = queued.get(key, {"free": 0, "pending": 0})
        # A tracker never forgets a key that somebody has named once.
        if count or found["pending"]:
            yield Queue(key, count, found["free"], found["pending"])
