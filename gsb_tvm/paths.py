"""``gsb-tvm paths``: where the package keeps what C++ programs are built with."""

import argparse
import json
import sys
from collections.abc import Sequence

from gsb_tvm import command
from gsb_tvm.runtime.cpp_folder import CPP

PATHS = {
    "cmake": ("cmake", "for find_package: cmake -Dgsb_tvm_DIR=..."),
    "include": ("include", "headers, with gsb_tvm/session.hpp"),
    "pkgconfig": ("pkgconfig", "for PKG_CONFIG_PATH"),
}
"""Option -> folder below that of C and C++, help."""


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(prog, "Show where the files for C++ programs are.")
    choice = made.add_mutually_exclusive_group()
    for option, (_, text) in PATHS.items():
        choice.add_argument(f"--{option}", action="store_true", help=text)
    choice.add_argument("--json", action="store_true", help="print all of them as JSON")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.paths") -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return command.run(parser(prog), _execute, words, needs_tvm=False)


def _execute(args: argparse.Namespace) -> int:
    paths = {option: str(CPP / folder) for option, (folder, _) in PATHS.items()}
    chosen = [path for option, path in paths.items() if getattr(args, option)]
    command.require_stdout(lambda: print(*(chosen or _all(paths, as_json=args.json)), sep="\n"))
    return 0


def _all(paths: dict[str, str], *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps(paths)]
    return [f"{option:<12}{path}" for option, path in paths.items()]


if __name__ == "__main__":
    sys.exit(main())
