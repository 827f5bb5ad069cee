"""Time every kernel of a GSB network against the fastest loop of the same instructions.

A kernel's share of the limit is its rate over that of a loop that stays in registers and does
nothing else: xor, popcount, add (or the table lookups, or the carry-save adders, that a CPU without
population count makes do with) for products of bits, multiply-add for float products, reading as
many floats for what only looks at them. Kernel and loop are timed in turn, constants and inputs in
cache.

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
from measuring.arguments import add_outputs, add_timing, at_least, check_outputs
from measuring.machine import choose_cores, cpu_name, pinned, runnable
from measuring.output import say, write_json
from measuring.rounds import rounds_of

PRESETS = ("deit-tiny", "deit-small", "deit-base", "mini", "mini64")
_TITLES = ("calls", "µs a call", "ms", "G/s", "a cycle", "GB/s", "limit G/s", "share", "quartiles")


def parser() -> Parser:
    """Arguments of the command."""
    found = Parser(
        "benchmarks/limit.py",
        __doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    from limits.kernels import kernels
    from limits.timing import measure

    with tempfile.TemporaryDirectory() as scratch, pinned(cores):
        model, name = model_of(args, Path(scratch))
        say("compiling")
        found = kernels(model, profile)
        say("timing")
        results, hertz = measure(found, profile, rounds_of(args))
    speed = f", {hertz / 1e9:.2f} GHz" if hertz else ""
    console.show(f"{name} for {profile.name} on {cpu_name()}{speed}", table(results))
    if args.json:
        write_json(args.json, {"model": name, "clock_hz": hertz, "kernels": results})
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


def table(results: Sequence[Any]):
    """A row for each kernel, the longest part of the pass first."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("kernel", "shape"):
        found.add_column(name, no_wrap=True)
    for name in _TITLES:
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("limit", overflow="fold")
    for each in sorted(results, key=lambda each: -each.calls * each.microseconds):
        found.add_row(each.name, each.shape, *_cells(each), each.limit)
    total = sum(each.calls * each.microseconds for each in results) / 1e3
    found.add_row("all", "", "", "", f"{total:.2f}", *[""] * 7, style="bold")
    return found


def _cells(each: Any) -> list[str]:
    return [
        str(each.calls),
        f"{each.microseconds:.2f}",
        f"{each.calls * each.microseconds / 1e3:.3f}",
        f"{each.rate / 1e9:.0f} {each.unit}",
        "–" if each.per_cycle is None else f"{each.per_cycle:.0f}",
        f"{each.bytes_per_second / 1e9:.0f}",
        f"{each.limit_rate / 1e9:.0f}",
        f"{each.share:.2f}",
        f"{each.low_share:.2f}..{each.high_share:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
