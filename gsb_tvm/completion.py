"""``gsb-tvm completion``: a script that lets a shell complete verbs, options and files."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from gsb_tvm import command
from gsb_tvm.cli import VERBS
from gsb_tvm.dialect.errors import ToolchainError

SHELLS = ("bash", "zsh", "tcsh")


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(
        prog, 'Print a completion script; in ~/.bashrc: eval "$(gsb-tvm completion bash)".'
    )
    made.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.completion") -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return command.run(parser(prog), _execute, words, needs_tvm=False)


def _execute(args: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as err:
        raise ToolchainError("shtab is not installed. Run: pip install shtab") from err
    script = shtab.complete(_all_verbs(shtab.FILE), args.shell)
    command.require_stdout(lambda: print(script))
    return 0


def _all_verbs(file: object) -> argparse.ArgumentParser:
    """One parser with every verb's options; ``file`` marks arguments that are paths."""
    root = argparse.ArgumentParser("gsb-tvm")
    verbs = root.add_subparsers(parser_class=argparse.ArgumentParser)
    for verb, (module, text) in VERBS.items():
        made = import_module(f"gsb_tvm.{module}").parser(verb)
        for action in made._actions:
            if action.type is Path:
                action.complete = file
        verbs.add_parser(verb, help=text, parents=[made], add_help=False)
    return root


if __name__ == "__main__":
    sys.exit(main())
