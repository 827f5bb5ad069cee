"""``gsb-tvm device``: the boards of a farm that tunes: serve one, track many, list them."""

import argparse
import getpass
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gsb_tvm import command

if TYPE_CHECKING:
    from gsb_tvm.tuning.farm import Board, Farm, State

_MORE_PORTS = 99


def parser(prog: str) -> command.Parser:
    """Parser of the command: a word for what to do, then its arguments."""
    made = command.Parser(
        prog, "Serve a board to tuners, track the boards of a farm, list them. Runs TVM's RPC."
    )
    verbs = made.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, execute: Callable[[argparse.Namespace], None], text: str) -> command.Parser:
        found = verbs.add_parser(name, description=f"{text[:1].upper()}{text[1:]}.", help=text)
        found.set_defaults(execute=execute)
        return found

    served = verb("serve", _serve, "let tuners run code on this machine, until Ctrl-C")
    served.add_argument(
        "--tracker", type=command.address, metavar="HOST:PORT", help="to register with"
    )
    served.add_argument("--key", required=True, metavar="NAME", help="what to call such a board")
    _add_ports(served, 9090)
    tracked = verb("track", _track, "bring boards and tuners together, until Ctrl-C")
    _add_ports(tracked, 9190)
    listed = verb("list", _list, "show the boards that a tracker knows")
    listed.add_argument(
        "--tracker", type=command.address, required=True, metavar="HOST:PORT", help="to ask"
    )
    listed.add_argument("--json", action="store_true", help="print all of it as JSON")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.device") -> int:
    """Run the command and return its exit code."""

    def execute(args: argparse.Namespace) -> int:
        args.execute(args)
        return 0

    return command.run(parser(prog), execute, sys.argv[1:] if argv is None else argv)


def _add_ports(parser: command.Parser, port: int) -> None:
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="of this machine, to listen on (default 127.0.0.1: programs on this machine only)",
    )
    parser.add_argument(
        "--port", type=int, default=port, metavar="N", help=f"first port to try (default {port})"
    )
    parser.add_argument(
        "--port-end",
        type=int,
        metavar="N",
        help=f"last port to try (default: {_MORE_PORTS} above the first)",
    )


def _serve(args: argparse.Namespace) -> None:
    from gsb_tvm.tuning.serving import serve

    serve(_take_port(args), args.key, args.tracker, _say)


def _track(args: argparse.Namespace) -> None:
    from gsb_tvm.tuning.serving import track

    track(_take_port(args), _say)


def _list(args: argparse.Namespace) -> None:
    from gsb_tvm.tuning.farm import farm, states

    found = farm(args.tracker)
    looked = list(zip(found.boards, states(found.boards), strict=True))
    command.require_stdout(lambda: (_print_json if args.json else _show)(found, looked))


def _take_port(args: argparse.Namespace) -> socket.socket:
    from gsb_tvm.tuning.serving import is_open_to_others, take_port, where

    end = min(args.port + _MORE_PORTS, 65535) if args.port_end is None else args.port_end
    sock = take_port(args.host, args.port, end)
    if is_open_to_others(sock):
        port = sock.getsockname()[1]
        print(
            f"warning: {where(sock)} is open to other machines. TVM's RPC has no password and no "
            f"encryption: whoever reaches it can run any code as {getpass.getuser()}, or on the "
            "boards that come to it. Leave --host out and go through a tunnel: "
            f"ssh -L {port}:127.0.0.1:{port} from the other machine, or "
            f"ssh -R {port}:127.0.0.1:{port} to it.",
            file=sys.stderr,
        )
    return sock


def _say(text: str) -> None:
    command.require_stdout(lambda: print(text))


def _show(found: "Farm", looked: Sequence[tuple["Board", "State"]]) -> None:
    from gsb_tvm import console
    from gsb_tvm.tuning.farm import text

    boards = [[b.key, text(b.address), b.machine, state] for b, state in looked]
    queues = [[q.key, str(q.boards), str(q.free), str(q.waiting)] for q in found.queues]
    if not queues:
        print("no boards")
        return
    console.show(
        console.figures(("key", "board", "machine", "state"), boards, texts=4),
        "",
        console.figures(("key", "boards", "free", "requests waiting"), queues),
    )


def _print_json(found: "Farm", looked: Sequence[tuple["Board", "State"]]) -> None:
    import json
    from dataclasses import asdict

    from gsb_tvm.tuning.farm import text

    boards = [
        {"key": b.key, "address": text(b.address), "machine": b.machine, "state": state}
        for b, state in looked
    ]
    print(json.dumps({"boards": boards, "keys": [asdict(q) for q in found.queues]}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
