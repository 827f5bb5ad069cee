"""``gsb-tvm tune``, also ``python -m gsb_tvm.tune``: find the fastest kernels for a machine."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsb_tvm import command
from gsb_tvm.dialect.errors import ExitCode, UsageError
from gsb_tvm.targets import Profile, resolve, take_target

if TYPE_CHECKING:
    from gsb_tvm.tune_table import Report
    from gsb_tvm.tuning.machines import Place
    from gsb_tvm.tuning.tuner import Tuner

_MINUTES = 10.0
_MOST_SEED = 2**31 - 2  # MetaSchedule's is one more
_EPILOG = """\
What is measured goes to the file of records at once: whatever ends the command, the next one goes
on from there, and gsb-tvm compile takes each kernel's fastest choice from it.

exit codes:
  0 done   1 internal error   2 arguments, target, records   3 model
  4 linker, versions, a kernel that cannot be measured   130 interrupted
"""


def parser(prog: str) -> command.Parser:
    """Parser of everything but the target's words, which :func:`main` takes out before."""
    made = command.Parser(
        prog,
        "Tune the kernels of an ONNX model for this machine or for the boards of a farm; without "
        "MODEL, of the demo model that comes with the package.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("model", nargs="?", type=Path, metavar="MODEL", help="the ONNX file")
    add("--target", metavar="TARGET ...", help="what to tune for (as for gsb-tvm compile)")
    add(
        "--trials",
        type=_whole,
        metavar="N",
        help="in all, with those on record before and one for each kernel's rule",
    )
    add(
        "--minutes",
        type=_positive,
        metavar="M",
        help=f"from now on (default {_MINUTES:.0f} where --trials is not given)",
    )
    add("--records", type=Path, metavar="FILE", help="default: in the user's cache folder")
    add("--batch", type=_whole, metavar="N", help="size of an open batch axis (default 1)")
    add("--seed", type=_seed, default=0, metavar="N", help="of the search (default 0)")
    add(
        "--tracker",
        type=command.address,
        metavar="HOST:PORT",
        help="tune on the boards that this tracker knows",
    )
    add("--key", metavar="NAME", help="kind of board, as its server was started with")
    add("--json", action="store_true", help="print one JSON object on standard output")
    return made


def _whole(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number above 0')
    return int(text)


def _seed(text: str) -> int:
    """Read a seed that every generator of random numbers takes."""
    if not text.isdecimal() or len(text) > 10 or int(text) > _MOST_SEED:
        raise argparse.ArgumentTypeError(f'"{text}" is no whole number from 0 to {_MOST_SEED}')
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < 60 * value < float("inf"):
        raise argparse.ArgumentTypeError(f'"{text}" is no number above 0')
    return value


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.tune") -> int:
    """Run the command and return its exit code."""
    target, rest = take_target(sys.argv[1:] if argv is None else argv)
    words = ["native"] if target is None else target
    return command.run(parser(prog), lambda args: _execute(args, words), rest)


def _execute(args: argparse.Namespace, target: Sequence[str]) -> int:
    start = time.perf_counter()
    profile = resolve(target)
    path = _records(args)
    place, boards, host = _place(args, profile)

    from gsb_tvm.extraction import tasks
    from gsb_tvm.tune_table import report, watched
    from gsb_tvm.tuning.tuner import Plan, Tuner

    model = command.model_or_demo(args.model)
    found = tasks(model, args.batch, profile)
    if not found:
        raise UsageError(f"{model}: no kernel of this model leaves a choice for {profile.name}.")
    notes = _recall(found, path)
    minutes = args.minutes or (None if args.trials else _MINUTES)
    seconds = None if minutes is None else max(0.0, 60 * minutes - (time.perf_counter() - start))
    plan = Plan(args.trials, seconds, args.seed, boards)
    with watched(found, profile, is_here=args.tracker is None, is_quiet=args.json) as view:
        tuner = Tuner(found, profile, place, path, plan, host, view.changed)
        was_interrupted = _run(tuner)
        result = report(tuner, view, notes)
    if args.json:
        text = as_dict(result, profile, path, time.perf_counter() - start)
        command.require_stdout(lambda: print(json.dumps(text, indent=2)))
    else:
        command.require_stdout(lambda: _show(result, profile, path))
    return int(ExitCode.INTERRUPTED if was_interrupted else ExitCode.OK)


def _run(tuner: "Tuner") -> bool:
    """Tune; return whether the user ended it before its time."""
    try:
        tuner.run()
    except KeyboardInterrupt:
        return True
    return False


def _records(args: argparse.Namespace) -> Path:
    from gsb_tvm.schedules.records import check_appendable
    from gsb_tvm.tuned import records_path

    path: Path = args.records or records_path()
    check_appendable(path)
    return path


def _recall(found: Sequence[Any], path: Path) -> tuple[str, ...]:
    """Tell tasks what is on record, and return what is wrong with the file."""
    from gsb_tvm.schedules.records import load
    from gsb_tvm.tuned import complaints

    if not path.exists():
        return ()
    loaded = load(path)
    for task in found:
        task.add(loaded.records)
    return complaints(path, loaded)


def _place(args: argparse.Namespace, profile: Profile) -> tuple["Place", int, str]:
    """Where to measure, how many candidates at a time, and what is measured, for people.

    Raises
    ------
    UsageError
        The options do not go together, this machine cannot run the target's code, or no board of
        the key is known to the tracker.
    """
    if (args.tracker is None) != (args.key is None):
        given, wanted = ("--key", "--tracker") if args.tracker is None else ("--tracker", "--key")
        raise UsageError(f"{given} is given without {wanted}. A farm needs both.")
    if args.tracker is not None:
        from gsb_tvm.tuning.boards import boards_of

        return *boards_of(args.tracker, args.key, profile), f"{args.key} of a farm"
    if profile.gpu is not None:
        from gsb_tvm.tuning.gpus import gpu_here

        gpu, chip = gpu_here(profile)
        return gpu, 1, chip.text
    return _here(profile)


def _here(profile: Profile) -> tuple["Place", int, str]:
    """Tune on the CPU of this machine.

    Raises
    ------
    UsageError
        It cannot run the target's code.
    """
    from gsb_tvm.targets import missing_here
    from gsb_tvm.targets.host import cpu_name
    from gsb_tvm.tuning.machines import Here

    lacking = missing_here(profile)
    if lacking:
        raise UsageError(
            f"code for {profile.name} does not run here: this machine lacks "
            f"{', '.join(lacking[:8])}. Tune on a board: gsb-tvm tune --tracker HOST:PORT "
            "--key NAME."
        )
    return Here(), 1, cpu_name()


def as_dict(result: "Report", profile: Profile, records: Path, seconds: float) -> dict[str, Any]:
    """The result as one JSON object; ``seconds`` of the whole command."""
    return {
        "target": profile.target_string,
        "records": str(records),
        "trials": result.trials,
        "new": result.new,
        "failed": result.failed,
        "lost": result.lost,
        "seconds": round(seconds, 3),
        "rule_ms": result.rule_ms,
        "best_ms": result.best_ms,
        "kernels": [row.as_dict() for row in result.rows],
        "notes": list(result.notes),
    }


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms" if milliseconds >= 1 else f"{milliseconds * 1e3:.2f} µs"


def _show(result: "Report", profile: Profile, records: Path) -> None:
    from gsb_tvm import console
    from gsb_tvm.tune_table import table

    pairs = [
        ("target", f"{profile.name}, {profile.mtriple}"),
        ("kernels", f"{_time(result.rule_ms)} a run by rule, {_time(result.best_ms)} at best"),
        ("trials", result.trials_text),
        ("records", f"{records}: gsb-tvm compile takes them from there"),
        *(("note", note) for note in result.notes),
    ]
    console.show(table(result.rows), "", console.fields(pairs))


if __name__ == "__main__":
    sys.exit(main())
