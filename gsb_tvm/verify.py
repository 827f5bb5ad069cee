"""``gsb-tvm verify``: compare a compiled model with ONNX Runtime on the original."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gsb_tvm import command
from gsb_tvm.dialect.errors import ToolchainError, UsageError, VerifyError


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(prog, "Compare a compiled model with ONNX Runtime on random inputs.")
    add = made.add_argument
    add("artefact", type=Path, metavar="ARTEFACT", help="a compiled model (.so)")
    add("model", type=Path, metavar="MODEL", help="the ONNX file it was compiled from")
    add("--batch", type=int, metavar="N", help="as it was given to compile")
    add("--samples", type=int, default=8, metavar="N", help="inputs to compare (default 8)")
    add("--seed", type=int, default=0, metavar="N", help="of the inputs (default 0)")
    add("--json", action="store_true", help="print one JSON object on standard output")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.verify") -> int:
    """Run the command and return its exit code."""
    return command.run(parser(prog), _execute, sys.argv[1:] if argv is None else argv)


def _execute(args: argparse.Namespace) -> int:
    from gsb_tvm.runtime.session import load
    from gsb_tvm.verification import Check, compare, reference_of

    if args.samples < 1 or args.seed < 0:
        raise UsageError("--samples must be at least 1 and --seed at least 0.")
    module = load(args.artefact)
    reference = reference_of(args.model, args.batch)
    found = compare(module.run, reference, module.metadata, args.samples, args.seed)
    if args.json:
        check = Check("here", found).as_dict()
        command.require_stdout(lambda: print(json.dumps(check)))
    else:
        command.require_stdout(lambda: print(f"{found.verdict}: {found.reason}"))
    if found.verdict == "skipped":
        raise ToolchainError(f"nothing was compared: {found.reason}")
    if found.verdict == "failed":
        raise VerifyError(f"{args.artefact} differs from ONNX Runtime on {args.model}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
