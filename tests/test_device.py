"""``gsb-tvm device``: farms as a user sees them."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tvm.rpc import base

from gsb_tvm.cli import main
from gsb_tvm.targets.host import cpu_name
from gsb_tvm.tuning.farm import State, connected, look
from tests.commandline import CommandLine, refused
from tests.tuning import farms

PORT = farms.PORT + 50


@pytest.fixture(scope="module")
def tracker() -> Iterator[farms.Served]:
    with farms.track(PORT) as tracker:
        tracker.address()
        yield tracker


@pytest.fixture(scope="module")
def server(tracker: farms.Served) -> Iterator[farms.Served]:
    with farms.serve(tracker.address(), "some-board", PORT + 10) as server:
        server.address()
        farms.registered(tracker.address(), 1)
        yield server


def words(served: farms.Served) -> str:
    return "{}:{}".format(*served.address())


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_list(
    tracker: farms.Served, server: farms.Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device", "list", "--tracker", words(tracker)]) == 0
    assert rows(capsys) == [
        ["key", "board", "machine", "state"],
        ["some-board", words(server), *cpu_name().split(), "free"],
        [],
        ["key", "boards", "free", "requests", "waiting"],
        ["some-board", "1", "1", "0"],
    ]


def test_list_as_json(
    tracker: farms.Served, server: farms.Served, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["device", "list", "--json", "--tracker", words(tracker)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "boards": [
            {
                "key": "some-board",
                "address": words(server),
                "machine": cpu_name(),
                "state": "free",
            }
        ],
        "keys": [{"key": "some-board", "boards": 1, "free": 1, "waiting": 0}],
    }


def test_a_board_that_hangs_is_listed_as_busy(
    tracker: farms.Served, server: farms.Served, capsys: pytest.CaptureFixture[str]
) -> None:
    server.send(signal.SIGSTOP)
    assert main(["device", "list", "--tracker", words(tracker)]) == 0
    server.send(signal.SIGCONT)
    assert ["some-board", words(server), *cpu_name().split(), "busy"] in rows(capsys)


def test_a_board_under_a_wrong_address_is_listed_as_such(
    tracker: farms.Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """As behind a tunnel that has another port at its other end; of a version that says less."""
    with connected(tracker.address(), 5) as sock:
        info = {"key": "server:away", "addr": ("127.0.0.1", 1)}
        base.sendjson(sock, [base.TrackerCode.UPDATE_INFO, info])
        base.recvjson(sock)
        assert main(["device", "list", "--tracker", words(tracker)]) == 0
    assert ["away", "127.0.0.1:1", "no", "answer"] in rows(capsys)


def test_port_taken(tracker: farms.Served, gsb: CommandLine, tmp_path: Path) -> None:
    port = str(tracker.address()[1])
    done = gsb(tmp_path, "device", "track", "--port", port, "--port-end", port)
    refused(done, 2, f"port {port} is taken on 127.0.0.1. Name others with --port and --port-end.")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list", "--tracker", "127.0.0.1:1"), "127.0.0.1:1 (connection refused). Start one with"),
        (("list", "--tracker", "no.invalid:1"), "no tracker answers at no.invalid:1 ("),
        (("list", "--tracker", "127.0.0.1"), '"127.0.0.1" is no HOST:PORT as in 127.0.0.1:9190'),
        (("list",), "required: --tracker"),
        (("serve",), "required: --key"),
        (("serve", "--key", "x", "--port", "0"), "ports 0 to 99 are no range within 1 to 65535."),
        (("serve", "--key", "x", "--host", "no.invalid"), '"no.invalid" is no address of this ma'),
        (("track", "--host", "192.0.2.1"), "cannot listen on 192.0.2.1:9190 (cannot assign req"),
        (("track", "--port", "9", "--port-end", "8"), "ports 9 to 8 are no range within"),
        ((), "required: WHAT"),
    ],
)
def test_bad_arguments(
    arguments: tuple[str, ...], said: str, gsb: CommandLine, tmp_path: Path
) -> None:
    refused(gsb(tmp_path, "device", *arguments), 2, said)


def test_without_tornado(gsb: CommandLine, tmp_path: Path) -> None:
    done = gsb(tmp_path, "device", "track", "--port", str(PORT + 30), without=("tornado",))
    refused(done, 4, 'the package tornado. Run: pip install "gsb-tvm[tune]"')


def test_open_to_others(gsb: CommandLine, tmp_path: Path) -> None:
    stop = "import signal; signal.alarm = lambda _: signal.setitimer(signal.ITIMER_REAL, 1); "
    stop += "signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGTERM))"
    done = gsb(
        tmp_path, "device", "track", "--host", "0.0.0.0", "--port", str(PORT + 40), patch=stop
    )
    assert done.code == 0, done
    port = re.fullmatch(r"tracking boards on 0\.0\.0\.0:(\d+); Ctrl-C ends it\n", done.out)
    assert port, done
    assert done.err.startswith(f"warning: 0.0.0.0:{port[1]} is open to other machines."), done.err
    for said in ("can run any code as", f"ssh -L {port[1]}:", f"ssh -R {port[1]}:"):
        assert said in done.err
    assert done.err.count("\n") == 1


def test_a_silent_caller_does_not_hold_the_board(
    tracker: farms.Served, server: farms.Served
) -> None:
    with socket.create_connection(server.address(), 5):
        farms.soon(lambda: look(server.address(), 0.2) is State.FREE)
    farms.registered(tracker.address(), 1)


def test_a_flood_of_connections(tracker: farms.Served, server: farms.Served) -> None:
    for address, count in ((tracker.address(), 1000), (server.address(), 100)):
        callers = [socket.create_connection(address, 5) for _ in range(count)]
        for caller in callers[::2]:
            caller.sendall(b"GET / HTTP/1.1\r\n\r\n")
        for caller in callers:
            caller.close()
    farms.registered(tracker.address(), 1)
