"""Check and time everything on a GPU, from what ``tests.gpu.prepare`` made elsewhere.

    python -m tests.gpu FOLDER --json found.json

Prints what is found, stage by stage; ends with 6 where a check failed.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser("python -m tests.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="of tests.gpu.prepare")
    parser.add_argument("--json", type=Path, help="also write what is found to this file")
    parser.add_argument("--seconds", type=float, default=345, help="for everything (default 345)")
    parser.add_argument("--only", action="append", help="a stage; may be given several times")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    args.folder = args.folder.resolve()
    # Behind what is installed: the folder's packages are for a machine that lacks them.
    sys.path.append(str(args.folder / "site"))
    # Where PyTorch is older, tvm_ffi would compile something when it is imported, for a minute.
    os.environ.setdefault("TVM_FFI_DISABLE_TORCH_C_DLPACK", "1")
    if args.stage:
        from tests.gpu.running import be_stage

        code = be_stage(args.folder, args.stage, sys.stdin.read().split("\n"), args.rows)
        sys.stdout.flush()
        os._exit(code)  # without waiting for processes that draw what nobody will check
    return execute(args)


def execute(args: argparse.Namespace) -> int:
    """Run the stages, one after another."""
    from gsb_tvm.dialect.errors import ExitCode, GsbError
    from tests.gpu.whole import run_all

    try:
        failed = run_all(args.folder, args.only, args.seconds, args.json)
    except GsbError as err:
        print(err, file=sys.stderr)
        return int(err.exit_code)
    return int(ExitCode.VERIFY if failed else ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
