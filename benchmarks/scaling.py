"""Show how the time of a compiled GSB network grows with tokens, width, depth and batch.

One number is varied while the others stay at the base. All networks are timed in turn, A B C,
A B C. Beside the time stands the work, in multiply-accumulates as in the layer table: where time
grows less, fixed costs thin out; where it grows more, a cache has become too small.

    python benchmarks/scaling.py --json figures.json --plot figures.svg
    python benchmarks/scaling.py --base 224,384,12,1 --batch 1,2,4,8 --image 224 --threads 2
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gsb_tvm import console
from gsb_tvm.command import Parser, run
from gsb_tvm.dialect.errors import ExitCode, UsageError
from gsb_tvm.targets.host import cpu_name
from measuring.arguments import (
    add_outputs,
    add_timing,
    at_least,
    check_outputs,
    documented,
    numbers,
)
from measuring.machine import choose_cores, pinned, runnable
from measuring.output import say, write_json
from measuring.rounds import rounds_of

_BASE = (160, 192, 4, 1)
_DEFAULTS = {
    "image": (64, 112, 160, 224),
    "width": (64, 128, 192, 384),
    "depth": (1, 2, 4),
    "batch": (1, 2, 4, 8),
}
_HELP = {
    "image": "sides of images, multiples of 16; tokens are (side / 16)^2 + 2",
    "width": "widths, multiples of 64",
    "depth": "numbers of blocks",
    "batch": "images in a call",
}


def parser() -> Parser:
    """Arguments of the command."""
    found = documented("benchmarks/scaling.py", __doc__)
    for axis, values in _DEFAULTS.items():
        default = ",".join(map(str, values))
        found.add_argument(
            f"--{axis}", type=numbers(1), default=values, help=f"{_HELP[axis]} (default {default})"
        )
    found.add_argument(
        "--base",
        type=numbers(1),
        default=_BASE,
        help=f"image,width,depth,batch to vary from (default {','.join(map(str, _BASE))})",
    )
    found.add_argument("--target", default="native", help="as for gsb-tvm compile; runs here")
    found.add_argument("--threads", type=at_least(1), default=1, help="of a call (default 1)")
    found.add_argument("--cores", type=numbers(0), default=(), help="to run on (default from 0)")
    add_timing(found, rounds=10, seconds=0.1)
    add_outputs(found, plot=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parser(), execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Compile all networks, time them, print a table."""
    check_outputs(args.json, args.plot)
    profile, cores = runnable(args.target), choose_cores(args.threads, args.cores)
    if len(args.base) != len(_BASE):
        raise UsageError("--base: expected four numbers, image,width,depth,batch.")
    # Here, where arguments have been checked: they take seconds to import.
    from growth.networks import Point, build, sweep
    from growth.table import draw, table
    from growth.timing import measure

    lines = sweep(Point(*args.base), vars(args))
    points = list(dict.fromkeys(point for line in lines.values() for point in line))
    for point in points:
        point.config()  # so that all sizes are refused before the first is compiled
    with tempfile.TemporaryDirectory() as folder, pinned(cores):
        modules = {
            point: build(point, profile, Path(folder), args.threads, say) for point in points
        }
        say("timing")
        found = measure(modules, rounds_of(args))
    sweeps = {axis: [found[point] for point in line] for axis, line in lines.items()}
    title = f"{profile.name} on {cpu_name()}, {args.threads} thread{'s' * (args.threads > 1)}"
    base = ", ".join(f"{axis} {value}" for axis, value in zip(_DEFAULTS, args.base, strict=True))
    console.show(f"{title}; base: {base}", table(sweeps))
    if args.json:
        write_json(args.json, {"target": profile.target_string, "sweeps": sweeps})
    if args.plot:
        draw(sweeps, title, args.plot)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
