"""What all verbs of the command line share: arguments in, exit code out, errors as sentences."""

import argparse
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from gsb_tvm.dialect.errors import ExitCode, GsbError, OutputError, UsageError
from gsb_tvm.dialect.versions import PACKAGE, check_tvm
from gsb_tvm.dialect.without_torch import without_torch


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence, as all others."""

    def __init__(self, prog: str, description: str, **options: Any) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, **options)
        self.add_argument(
            "--version", action="version", version=f"gsb-tvm {PACKAGE}", help="print the version"
        )
        self.add_argument(
            "--verbose", action="store_true", help="show warnings, and a traceback for an error"
        )

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        known = [option for action in self._actions for option in action.option_strings]
        hint = _nearest_option(message, known)
        raise UsageError(f"{message[:1].lower()}{message[1:]}.{hint} See {self.prog} --help.")


def add_inputs(parser: Parser) -> None:
    """Add the option that says what a compiled model runs on."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a .npy file for each input, in order or by name; default: random numbers, seed 0",
    )


def add_threads(parser: Parser) -> None:
    """Add the option that says how many threads share the work of a call."""
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="that share a call's work (default 1)"
    )


def add_gpu(parser: Parser) -> None:
    """Add the option that says which GPU runs an artefact that is made for one."""
    parser.add_argument(
        "--gpu", type=int, metavar="N", help="that runs an artefact for GPUs (default 0)"
    )


def batches(text: str) -> tuple[int, ...]:
    """Read the value of ``--batch``: one number, or several between commas."""
    words = text.split(",")
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f'"{text}" is no number above 0, nor several as in 1,2,4')
    return tuple(map(int, words))


def model_or_demo(model: Path | None) -> Path:
    """The model that is named, or else the one that comes with the package."""
    if model is not None:
        return model
    from gsb_tvm.models.demo import model_path

    return model_path()


def address(text: str) -> tuple[str, int]:
    """Read the value of ``--tracker``: a host's name or number, and a port."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f'"{text}" is no HOST:PORT as in 127.0.0.1:9190')
    return host, int(port)


def _nearest_option(message: str, known: Sequence[str]) -> str:
    """Name the options nearest to the first one that is not known."""
    _, found, words = message.partition("unrecognized arguments: ")
    word = words.split(" ", 1)[0].partition("=")[0]
    if not found or not word.startswith("-"):
        return ""
    from gsb_tvm.targets.spec import OPTIONS, nearest

    if word in OPTIONS:
        return " It belongs to a target: write --target llvm -mcpu=NAME."
    return f" Nearest options: {nearest(word, known)}."


def run(
    parser: Parser,
    execute: Callable[[argparse.Namespace], int],
    argv: Sequence[str],
    *,
    needs_tvm: bool = True,
) -> int:
    """Parse ``argv``, execute, and turn whatever happens into an exit code.

    An error of the user's is one sentence on stderr. Standard output is flushed here, so that a
    full disk behind it is noticed.
    """
    with _interrupts() as was_interrupted:
        return _run(parser, execute, argv, needs_tvm, was_interrupted)


def _run(
    parser: Parser,
    execute: Callable[[argparse.Namespace], int],
    argv: Sequence[str],
    needs_tvm: bool,
    was_interrupted: Callable[[], bool],
) -> int:
    is_verbose = "--verbose" in argv
    try:
        args = parser.parse_args(argv)
        if needs_tvm:
            check_tvm()
        with warnings.catch_warnings(), without_torch():
            if not is_verbose:
                warnings.simplefilter("ignore")
            code = execute(args)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of our output has seen enough
        _discard_stdout()
        return int(ExitCode.OK)
    except KeyboardInterrupt:
        return _say("interrupted.", ExitCode.INTERRUPTED)
    except GsbError as err:
        if is_verbose:
            traceback.print_exc()
        return _say(str(err), err.exit_code)
    except Exception as err:
        if was_interrupted():
            return _say("interrupted.", ExitCode.INTERRUPTED)
        if is_verbose:
            traceback.print_exc()
        return _unexpected(err, is_verbose)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Remember an interrupt from the keyboard, and raise it as Python does by itself.

    Raised inside a library it may come out as an error of the library's own: TVM makes a nameless
    RuntimeError of it, the import of ONNX Runtime an ImportError.
    """
    seen = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    is_ours = threading.current_thread() is threading.main_thread() and (
        signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if is_ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(seen)
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def require_stdout(write: Callable[[], None]) -> None:
    """Write to standard output.

    Raises
    ------
    OutputError
        It cannot be written, for instance because the disk behind it is full.
    """
    try:
        write()
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as err:
        _discard_stdout()
        raise OutputError(f"standard output cannot be written ({err.strerror}).") from err


def _unexpected(err: Exception, is_verbose: bool) -> int:
    lines = str(err).strip().splitlines()
    what = f"{type(err).__name__}: {lines[-1][:200]}" if lines else type(err).__name__
    advice = "Please report it with" if is_verbose else "Please report it with --verbose, for"
    return _say(f"internal error ({what}). {advice} the traceback.", ExitCode.INTERNAL)


def _say(text: str, code: ExitCode) -> int:
    print(f"error: {text}", file=sys.stderr)
    return int(code)


def _discard_stdout() -> None:
    """Let the interpreter's own flush at exit go nowhere."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)
