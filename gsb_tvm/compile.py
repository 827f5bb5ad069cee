"""``gsb-tvm compile``, also ``python -m gsb_tvm.compile``: an ONNX model to an artefact."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsb_tvm import command
from gsb_tvm.dialect.chosen import AS_BY_RULE
from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.targets import resolve, take_target

if TYPE_CHECKING:
    from gsb_tvm.driver import Result

_EPILOG = """\
targets:
  native                        this machine (the default)
  llvm -mcpu=cortex-a72         a CPU by LLVM's name; the triple is inferred
  llvm -mcpu=haswell -mattr=+x  with features added (+) or removed (-)
  raspberry-pi/4b-aarch64       a tag of TVM; gsb-tvm targets lists all
  cuda -arch=sm_90              an NVIDIA GPU; no GPU is needed to compile for it

exit codes:
  0 done   1 internal error   2 arguments, target, output   3 model
  4 linker, versions   5 --strict   6 verification failed   130 interrupted
"""


def parser(prog: str) -> command.Parser:
    """Parser of everything but the target's words, which :func:`main` takes out before."""
    made = command.Parser(
        prog,
        "Compile an ONNX model; without MODEL, the demo model that comes with the package.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("model", nargs="?", type=Path, metavar="MODEL", help="the ONNX file")
    add("--target", metavar="TARGET ...", help="what to generate code for (see below)")
    add("-o", "--output", type=Path, metavar="OUT", help="default: <model>-<cpu>[.so], here")
    add(
        "--emit",
        choices=("shared", "c-library"),
        default="shared",
        help="a shared library for Python and C++, or a folder with a static one for C and C++",
    )
    add("--name", metavar="NAME", help="of the C library (default: the model's)")
    add(
        "--batch",
        type=command.batches,
        metavar="N[,N...]",
        help="size of an open batch axis (default 1), or several in one artefact, as in 1,2,4",
    )
    choosing = made.add_mutually_exclusive_group()
    choosing.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="of gsb-tvm tune, to choose kernels by (default: in the user's cache folder)",
    )
    choosing.add_argument(
        "--by-rule", action="store_true", help="choose all kernels by rule, none by records"
    )
    add("--strict", action="store_true", help="fail if a binary operator is left in float")
    add("--no-verify", action="store_true", help="do not compare with ONNX Runtime")
    add("--json", action="store_true", help="print one JSON object on standard output")
    add(
        "--dump-ir", type=Path, metavar="DIR", help="write the module after each pass, LLVM IR, asm"
    )
    add("--stop-after", metavar="PASS", help="print the module after that pass and stop")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.compile") -> int:
    """Run the command and return its exit code."""
    target, rest = take_target(sys.argv[1:] if argv is None else argv)
    words = ["native"] if target is None else target
    return command.run(parser(prog), lambda args: _execute(args, words), rest)


def _execute(args: argparse.Namespace, target: Sequence[str]) -> int:
    start = time.perf_counter()
    from gsb_tvm import console
    from gsb_tvm.driver import compile_model
    from gsb_tvm.options import Options

    profile = resolve(target)
    model = command.model_or_demo(args.model)
    name = _library_name(args, model)
    suffix = ".so" if name is None else ""
    options = Options(
        args.output or Path(f"{model.stem}-{profile.mcpu}{suffix}"),
        args.batch,
        not args.no_verify,
        args.strict,
        args.dump_ir,
        args.stop_after,
        name,
        args.records,
        args.by_rule,
    )
    quiet = args.json or args.stop_after is not None
    with console.observer(quiet=quiet) as observer:
        result = compile_model(model, profile, options, observer)
    seconds = time.perf_counter() - start  # with the loading of TVM
    if args.json:
        command.require_stdout(lambda: print(json.dumps(as_dict(result, seconds))))
    elif result.artefact is None:
        command.require_stdout(lambda: print(result.module.script()))
    else:
        command.require_stdout(lambda: _show(model, result, seconds, args))
    return 0


def _library_name(args: argparse.Namespace, model: Path) -> str | None:
    """Name of the C library that is asked for."""
    if args.emit == "c-library":
        from gsb_tvm.runtime.c_names import derived, library_name

        return derived(model.stem) if args.name is None else library_name(args.name)
    if args.name is not None:
        raise UsageError("--name belongs to a C library. Add --emit c-library or leave it out.")
    return None


def as_dict(result: "Result", seconds: float) -> dict[str, Any]:
    """The result as one JSON object; ``seconds`` of the whole command."""
    import msgspec

    from gsb_tvm.verification import verdict

    rows = result.layers
    packed = sum(row.form == "packed" for row in rows)
    return {
        "artefact": str(result.artefact) if result.artefact else None,
        "target": result.profile.target_string,
        "batches": list(result.batches),
        "layers": {
            "total": len(rows),
            "packed": packed,
            "float": len(rows) - packed,
            "rows": msgspec.to_builtins(rows),
        },
        "tuned": {
            "kernels": sum(len(each.kernels) for each in result.programs),
            "rows": [
                {"kernel": name, "choice": choice, "batch": each.batch}
                for each in result.programs
                for name, choice in each.tuned.items()
            ],
        },
        "verify": {
            "verdict": verdict(result.checks),
            "checks": [check.as_dict() for check in result.checks],
        },
        "seconds": round(seconds, 3),
        "seconds_by_phase": {name: round(time_s, 3) for name, time_s in result.seconds.items()},
        "bytes": result.size_bytes,
        "notes": list(result.notes),
    }


def _show(model: Path, result: "Result", seconds: float, args: argparse.Namespace) -> None:
    from gsb_tvm import console

    rest = seconds - sum(result.seconds.values())
    phases = {"start-up": rest, **result.seconds}
    times = ", ".join(f"{name} {time_s:.1f}" for name, time_s in phases.items())
    checks = [(check.place, check.result) for check in result.checks]
    batches = ", ".join(map(str, result.batches)) if len(result.batches) > 1 else ""
    pairs = [
        ("layers", console.layer_summary(result.layers)),
        ("model", str(model)),
        ("target", f"{result.profile.name}, {result.profile.mtriple}"),
        *([("batches", f"{batches}; the layers are those of the first")] if batches else []),
        ("tuned", _tuned_text(result, by_rule=args.by_rule)),
        ("artefact", f"{result.artefact}, {console.count(result.size_bytes)}B"),
        ("time", f"{seconds:.1f} s ({times})"),
        *((f"verify ({where})", f"{found.verdict}: {found.reason}") for where, found in checks),
        *([] if checks else [("verify", "skipped: --no-verify.")]),
        *(("note", note) for note in result.notes),
    ]
    console.show(console.layer_table(result.layers), "", console.fields(pairs))


def _tuned_text(result: "Result", *, by_rule: bool) -> str:
    """How many kernels records chose, and which."""
    count = sum(len(each.kernels) for each in result.programs)
    known = [item for each in result.programs for item in each.tuned.items()]
    tuned = [name for name, choice in known if choice != AS_BY_RULE]
    if by_rule:
        return f"none of {count} kernels: --by-rule"
    if not known:
        return f"none of {count} kernels; gsb-tvm tune finds faster ones"
    named = f": {', '.join(tuned)}" if tuned else ""
    confirmed = (
        f"; the rule is best for {len(known) - len(tuned)}" if len(known) > len(tuned) else ""
    )
    return f"{len(tuned)} of {count} kernels by records{named}{confirmed}"


if __name__ == "__main__":
    sys.exit(main())
