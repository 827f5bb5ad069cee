"""Arguments that the commands share, and checks made before minutes of work."""

import argparse
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from gsb_tvm.command import Parser
from gsb_tvm.dialect.errors import OutputError, ToolchainError, UsageError

PICTURES = (".png", ".svg", ".pdf")
PRESETS = ("deit-tiny", "deit-small", "deit-base", "mini", "mini64")  # models.gsb's, without torch


def documented(name: str, text: str) -> Parser:
    """Parser of a command whose docstring, ``text``, is its help."""
    title, _, rest = text.partition("\n\n")
    return Parser(name, title, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)


def numbers(least: int) -> Callable[[str], tuple[int, ...]]:
    """Type of an argument such as ``1,2,8``, each at least ``least``."""

    def parse(text: str) -> tuple[int, ...]:
        try:
            values = tuple(int(word) for word in text.split(","))
        except ValueError:
            values = ()
        if not values or min(values) < least:
            raise argparse.ArgumentTypeError(
                f'"{text}" is not a list of numbers of at least {least}, such as {least},2'
            )
        return values

    return parse


def at_least(least: int) -> Callable[[str], int]:
    """Type of one number."""

    def parse(text: str) -> int:
        found = numbers(least)(text)
        if len(found) > 1:
            raise argparse.ArgumentTypeError(f'"{text}" is a list, expected one number')
        return found[0]

    return parse


def add_timing(parser: argparse.ArgumentParser, *, rounds: int, seconds: float) -> None:
    """Add the arguments about how to time."""
    parser.add_argument(
        "--rounds", type=at_least(1), default=rounds, help=f"rounds of A B C (default {rounds})"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=seconds,
        help=f"time for one part of a round (default {seconds})",
    )
    parser.add_argument("--lock", type=Path, help="a file to hold with flock while timing")
    parser.add_argument(
        "--priority",
        type=at_least(0),
        default=0,
        help="time with this SCHED_FIFO priority (needs root); 0, the default, leaves it",
    )


def add_outputs(parser: argparse.ArgumentParser, *, plot: bool) -> None:
    """Add the arguments about where figures go besides the terminal."""
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    if plot:
        parser.add_argument("--plot", type=Path, help="also draw them: picture.png, .svg or .pdf")


def check_outputs(json: Path | None, plot: Path | None = None) -> None:
    """Refuse what cannot be written, or drawn, before any work is done.

    Raises
    ------
    OutputError
        The folder is missing or read-only.
    UsageError
        The picture's format is unknown.
    ToolchainError
        There is no matplotlib.
    """
    for path in (json, plot):
        if path is not None and not os.access(path.absolute().parent, os.W_OK):
            raise OutputError(f"{path}: its folder cannot be written to. Choose another path.")
    if plot is None:
        return
    if plot.suffix not in PICTURES:
        raise UsageError(f"{plot}: expected a name that ends in {', '.join(PICTURES)}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ToolchainError(
            'matplotlib is not installed, which --plot needs. Run pip install "gsb-tvm[bench]".'
        )
