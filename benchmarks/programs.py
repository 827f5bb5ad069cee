"""Run a network in emulated programs for other CPUs, and compare them with this machine's artefact.

Each CPU gets three kinds of program, none with Python in it: "library" calls the C library in
memory of its own, without threads, linked statically; "example" is the emitted folder's own,
built with CMake as its README says, on two threads; "session" is a C++ program that opens the
shared library by gsb_tvm::Session. Needs qemu-user, CMake and a C++ compiler for 64-bit Arm.

    python benchmarks/programs.py
    python benchmarks/programs.py --model demo,deit-small --cpu cortex-a72,cortex-a53,neoverse-n1
    python benchmarks/programs.py --model mine.onnx --images 16 --json figures.json
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gsb_tvm import console
from gsb_tvm.command import Parser, run
from gsb_tvm.dialect.errors import ExitCode, VerifyError
from measuring.arguments import PRESETS, add_outputs, at_least, check_outputs, documented
from measuring.output import say, write_json

_MODELS = "demo,deit-small"
_CPUS = "cortex-a72,cortex-a53,neoverse-n1"


def parser() -> Parser:
    """Arguments of the command."""
    found = documented("benchmarks/programs.py", __doc__)
    found.add_argument(
        "--model",
        default=_MODELS,
        help=f"by commas: demo, {', '.join(PRESETS)}, ONNX files (default {_MODELS})",
    )
    found.add_argument("--cpu", default=_CPUS, help=f"by commas (default {_CPUS})")
    found.add_argument("--images", type=at_least(1), default=8, help="random ones (default 8)")
    add_outputs(found, plot=False)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parser(), execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Compile, build, run and compare; print a table.

    Raises
    ------
    VerifyError
        A program's outputs are not exact.
    """
    check_outputs(args.json)
    # Here, where arguments have been checked: they take seconds to import.
    from emulated.outcomes import outcomes, table

    with tempfile.TemporaryDirectory() as work:
        models, cpus = args.model.split(","), args.cpu.split(",")
        found = outcomes(models, cpus, args.images, Path(work), say)
    console.show(table(found))
    if args.json:
        write_json(args.json, found)
    wrong = [each for each in found if each.exact < each.images]
    if wrong:
        worst = max(wrong, key=lambda each: each.error)
        raise VerifyError(
            f"{len(wrong)} of {len(found)} programs differ from this machine's artefact, "
            f'by up to {worst.error:.1e} of the largest output ("{worst.program}", {worst.cpu}).'
        )
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
