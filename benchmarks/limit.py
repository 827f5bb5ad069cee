"""Time every kernel of a GSB network against the fastest loop of the same instructions.

A kernel's share of the limit is its rate over that of a loop that stays in registers and does
nothing else: xor, popcount, add (or the table lookups, or the carry-save adders, that a CPU without
population count makes do with) for products of bits, multiply-add for float products, reading as
many floats for what only looks at them. Kernel and loop are timed in turn, constants and inputs in
cache; "inside" is a call of the kernel in the whole network.

    python benchmarks/limit.py --json figures.json
    python benchmarks/limit.py --target "llvm -mcpu=haswell"
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gsb_tvm import console
from gsb_tvm.command import Parser, run
from gsb_tvm.dialect.errors import ExitCode, UsageError
from gsb_tvm.targets.host import cpu_name
from measuring.arguments import (
    PRESETS,
    add_outputs,
    add_timing,
    at_least,
    check_outputs,
    documented,
)
from measuring.machine import choose_cores, pinned, runnable
from measuring.output import say, write_json
from measuring.rounds import rounds_of

_TITLES = (
    "calls",
    "µs alone",
    "inside",
    "ms inside",
    "G/s",
    "a cycle",
    "GB/s",
    "limit G/s",
    "share",
    "quartiles",
)


def parser() -> Parser:
    """Arguments of the command."""
    found = documented("benchmarks/limit.py", __doc__)
    found.add_argument("--preset", choices=PRESETS, help="network shape (default deit-small)")
    found.add_argument("--model", type=Path, help="a network of your own, ONNX")
    found.add_argument("--target", default="native", help="as for gsb-tvm compile; runs here")
    found.add_argument("--core", type=at_least(0), default=0, help="to run on (default 0)")
    add_timing(found, rounds=10, seconds=0.02)
    add_outputs(found, plot=False)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parser(), execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Time all kernels in this process; print a table, and write JSON where asked for."""
    check_outputs(args.json)
    profile = runnable(args.target)
    cores = choose_cores(1, (args.core,))
    # Here, where arguments have been checked: they take seconds to import.
    from limits.inside import Network
    from limits.kernels import kernels
    from limits.timing import measure

    with tempfile.TemporaryDirectory() as scratch, pinned(cores):
        model, name = model_of(args, Path(scratch))
        say("compiling")
        found = kernels(model, profile)
        network = Network(model, profile, Path(scratch))
        say("timing")
        results, hertz = measure(found, network, profile, rounds_of(args))
    speed = f", {hertz / 1e9:.2f} GHz" if hertz else ""
    whole = network.whole_seconds() * 1e3
    console.show(f"{name} for {profile.name} on {cpu_name()}{speed}", table(results, whole))
    if args.json:
        figures = {"model": name, "clock_hz": hertz, "whole_ms": whole, "kernels": results}
        write_json(args.json, figures)
    return int(ExitCode.OK)


def model_of(args: argparse.Namespace, folder: Path) -> tuple[Path, str]:
    """The model's file and name; a preset is exported.

    Raises
    ------
    UsageError
        Both are given, or the file does not exist.
    """
    if args.model and args.preset:
        raise UsageError("--preset and --model exclude each other. Leave one of them out.")
    if args.model and not args.model.is_file():
        raise UsageError(f"{args.model}: there is no such file.")
    if args.model:
        return args.model, args.model.name
    from comparison.models import exported

    preset = args.preset or "deit-small"
    return exported(preset, "gsb", 1, folder), preset


def table(results: Sequence[Any], whole_ms: float):
    """A row for each kernel, the longest part of the pass first."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kernel", "shape"):
        found.add_column(name, no_wrap=True)
    for name in _TITLES:
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("limit", overflow="fold")
    for each in sorted(results, key=_inside_ms, reverse=True):
        found.add_row(each.name, each.shape, *_cells(each), each.limit)
    rest = whole_ms - sum(map(_inside_ms, results))
    for name, value in (("float remainder", rest), ("whole", whole_ms)):
        found.add_row(name, *[""] * 4, f"{value:.3f}", *[""] * 7)
    return found


def _inside_ms(each: Any) -> float:
    """Milliseconds of all calls in a pass."""
    return each.calls * each.microseconds_inside / 1e3


def _cells(each: Any) -> list[str]:
    return [
        str(each.calls),
        f"{each.microseconds:.2f}",
        f"{each.microseconds_inside:.2f}",
        f"{_inside_ms(each):.3f}",
        f"{each.rate / 1e9:.0f} {each.unit}",
        "–" if each.per_cycle is None else f"{each.per_cycle:.0f}",
        f"{each.bytes_per_second / 1e9:.0f}",
        f"{each.limit_rate / 1e9:.0f}",
        f"{each.share:.2f}",
        f"{each.low_share:.2f}..{each.high_share:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
