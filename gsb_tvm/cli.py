"""``gsb-tvm``: one verb, then its arguments. Only the verb's own module is imported."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from gsb_tvm import command
from gsb_tvm.dialect.errors import UsageError

VERBS = {
    "compile": ("compile", "compile an ONNX model into a shared library"),
    "tune": ("tune", "find the fastest kernels for this machine or a farm of boards"),
    "run": ("run", "run a compiled model on arrays from .npy files"),
    "bench": ("bench", "time a compiled model, as a whole and step by step"),
    "verify": ("verify", "compare a compiled model with ONNX Runtime"),
    "inspect": ("inspect", "show what an artefact says about itself"),
    "db": ("db", "check, list, merge and prune records of tuning"),
    "device": ("device", "serve, track and list the boards of a farm that tunes"),
    "targets": ("list_targets", "list targets, or show how one is understood"),
    "paths": ("paths", "show where the files for C++ programs are"),
    "doctor": ("doctor", "show what is installed and what is missing"),
    "completion": ("completion", "print a completion script for a shell"),
}
"""Verb -> module of the face, help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in VERBS:
        module, _ = VERBS[words[0]]
        verb = import_module(f"gsb_tvm.{module}")
        return int(verb.main(words[1:], prog=f"gsb-tvm {words[0]}"))
    return command.run(_parser(), _refuse, words, needs_tvm=False)


def _parser() -> command.Parser:
    verbs = "\n".join(f"  {verb:<12}{text}" for verb, (_, text) in VERBS.items())
    made = command.Parser(
        "gsb-tvm",
        "Compiler for binary vision transformers.",
        usage="gsb-tvm VERB [arguments]; gsb-tvm VERB --help",
        epilog=f"verbs:\n{verbs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("verb", metavar="VERB", nargs="?", help="what to do")
    made.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    return made


def _refuse(args: argparse.Namespace) -> int:
    from gsb_tvm.targets.spec import nearest

    if args.verb is None:
        raise UsageError("no verb is given. See gsb-tvm --help.")
    raise UsageError(f'unknown verb "{args.verb}". Nearest verbs: {nearest(args.verb, VERBS)}.')


if __name__ == "__main__":
    sys.exit(main())
