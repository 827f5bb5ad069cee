"""``gsb-tvm verify``: compare a compiled model with ONNX Runtime on the original."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsb_tvm import command
from gsb_tvm.dialect.errors import ToolchainError, UsageError, VerifyError

if TYPE_CHECKING:
    from gsb_tvm.runtime.metadata import Metadata, Program
    from gsb_tvm.verification import Check


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(prog, "Compare a compiled model with ONNX Runtime on random inputs.")
    add = made.add_argument
    add("artefact", type=Path, metavar="ARTEFACT", help="a compiled model (.so)")
    add("model", type=Path, metavar="MODEL", help="the ONNX file it was compiled from")
    add("--batch", type=int, metavar="N", help="only the program for N (default: all)")
    add("--samples", type=int, default=8, metavar="N", help="inputs to compare (default 8)")
    add("--seed", type=int, default=0, metavar="N", help="of the inputs (default 0)")
    command.add_gpu(made)
    add("--json", action="store_true", help="print one JSON object on standard output")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.verify") -> int:
    """Run the command and return its exit code."""
    return command.run(parser(prog), _execute, sys.argv[1:] if argv is None else argv)


def _execute(args: argparse.Namespace) -> int:
    from gsb_tvm.loading import load
    from gsb_tvm.verification import Check, compare, reference_of, verdict

    if args.samples < 1 or args.seed < 0:
        raise UsageError("--samples must be at least 1 and --seed at least 0.")
    module = load(args.artefact, gpu=args.gpu)
    checks = []
    for program in _wanted(module.metadata, args.batch):
        reference = reference_of(args.model, program.batch or args.batch)
        found = compare(module.run, reference, program.inputs, args.samples, args.seed)
        checks.append(Check("here", found, program.batch))
    if args.json:
        answer = {"verdict": verdict(checks), "checks": [check.as_dict() for check in checks]}
        command.require_stdout(lambda: print(json.dumps(answer)))
    else:
        command.require_stdout(lambda: _show(checks))
    if verdict(checks) == "skipped":
        raise ToolchainError(f"nothing was compared: {checks[0].result.reason}")
    if verdict(checks) == "failed":
        raise VerifyError(f"{args.artefact} differs from ONNX Runtime on {args.model}.")
    return 0


def _wanted(metadata: "Metadata", batch: int | None) -> list["Program"]:
    """Programs to compare; one that takes shapes as they stand may be of any batch."""
    found = [each for each in metadata.programs if batch is None or each.batch in (batch, 0)]
    if not found:
        batches = ", ".join(str(program.batch) for program in metadata.programs)
        raise UsageError(f"there is no program for a batch of {batch}, only for {batches}.")
    return found


def _show(checks: Sequence["Check"]) -> None:
    for check in checks:
        place = f" ({check.place})" if len(checks) > 1 else ""
        print(f"{check.result.verdict}{place}: {check.result.reason}")


if __name__ == "__main__":
    sys.exit(main())
