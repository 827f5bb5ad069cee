"""Show what tuning is worth: a model and its kernels by rule and by records, in turn.

With --poor the search begins with the rule of another CPU, and what it finds is held against the
rule of this one.

    gsb-tvm tune model.onnx --minutes 20 --records model.records
    python benchmarks/tuning.py model.onnx --records model.records --json figures.json
    python benchmarks/tuning.py model.onnx --poor haswell --minutes 20
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsb_tvm import console
from gsb_tvm.command import Parser, run
from gsb_tvm.dialect.errors import ExitCode, UsageError
from gsb_tvm.targets import Profile
from measuring.arguments import add_outputs, add_timing, at_least, check_outputs, documented
from measuring.machine import runnable
from measuring.output import say, write_json
from measuring.rounds import rounds_of

if TYPE_CHECKING:
    from gsb_tvm.tuning.tasks import Task


def parser() -> Parser:
    """Arguments of the command."""
    found = documented("benchmarks/tuning.py", __doc__)
    found.add_argument("model", type=Path, metavar="MODEL", help="the ONNX file")
    found.add_argument("--records", type=Path, metavar="FILE", help="of gsb-tvm tune")
    found.add_argument("--poor", metavar="CPU", help="begin with the rule of this x86 CPU")
    found.add_argument(
        "--minutes", type=at_least(1), default=20, help="to tune with --poor (default 20)"
    )
    found.add_argument("--target", default="native", help="as for gsb-tvm compile; runs here")
    add_timing(found, rounds=30, seconds=0.3)
    add_outputs(found, plot=False)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parser(), execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Measure, print tables."""
    check_outputs(args.json)
    profile = runnable(args.target)
    if (args.records is None) == (args.poor is None):
        raise UsageError("give --records for what tuning brought, or --poor for a poor start.")
    from gsb_tvm.extraction import tasks

    found = tasks(args.model, None, profile)
    if args.poor is not None:
        return _regain(args, profile, found)
    return _compare(args, profile, found)


def _compare(args: argparse.Namespace, profile: Profile, found: Sequence["Task"]) -> int:
    """The whole model and each kernel, by rule and by records."""
    from gsb_tvm.schedules.records import load
    from tuned.kernels import Pair, ratios
    from tuned.whole import compiled, measure

    records = load(args.records).records
    for task in found:
        task.add(records)
    pairs = [Pair(task, task.space[0], task.space[task.best]) for task in found]
    say("timing kernels")
    gains = ratios(pairs, profile)
    with tempfile.TemporaryDirectory() as folder:
        say("compiling")
        modules = compiled(args.model, profile, args.records, Path(folder))
        say("timing the model")
        whole = measure(modules, rounds_of(args))
    rows = [
        [task.name[:40], task.shape, f"{task.trials}/{len(task.space)}", f"{gain:.3f}x"]
        for task, gain in zip(found, gains, strict=True)
    ]
    times = [
        [
            name,
            f"{f.median_ms:.3f}",
            f"{f.low_ms:.3f}..{f.high_ms:.3f}",
            f"{f.best_ms:.3f}",
            f"{f.quiet}/{f.runs}",
        ]
        for name, f in whole.items()
    ]
    rule, tuned = whole["rule"], whole["records"]
    console.show(
        console.figures(("kernel", "shape", "trials", "gain"), rows, texts=2),
        "",
        console.figures(("chosen by", "ms", "quartiles", "best", "quiet"), times),
        f"gain of the whole {rule.median_ms / tuned.median_ms:.3f}x (medians), "
        f"{rule.best_ms / tuned.best_ms:.3f}x (best times)",
    )
    if args.json:
        kernels = [
            {"kernel": t.key.kernel, "trials": t.trials, "gain": g}
            for t, g in zip(found, gains, strict=True)
        ]
        write_json(args.json, {"target": profile.target_string, "whole": whole, "kernels": kernels})
    return int(ExitCode.OK)


def _regain(args: argparse.Namespace, profile: Profile, found: Sequence["Task"]) -> int:
    """Tune from another CPU's rule, and hold the best against this one's."""
    from gsb_tvm.targets import resolve
    from gsb_tvm.tuning.machines import Here
    from gsb_tvm.tuning.tuner import Plan, Tuner
    from tuned.kernels import Pair, misjudged, plain, ratios

    poor = misjudged(found, profile, resolve(f"llvm -mcpu={args.poor}"))
    with tempfile.TemporaryDirectory() as folder:
        say(f"tuning for {args.minutes} minutes")
        plan = Plan(None, 60.0 * args.minutes)
        Tuner(poor, profile, Here(), Path(folder) / "records", plan, "a benchmark").run()
    goods = [plain(task).workload.space(profile)[0] for task in poor]
    say("timing kernels")
    starts = ratios(
        [Pair(task, good, task.space[0]) for task, good in zip(poor, goods, strict=True)], profile
    )
    ends = ratios(
        [Pair(task, good, task.space[task.best]) for task, good in zip(poor, goods, strict=True)],
        profile,
    )
    choices = [dict(task.space[task.best]) for task in poor]
    rows = [
        [task.name, task.shape, said, f"{task.trials}/{len(task.space)}", f"{a:.2f}", f"{b:.2f}"]
        for task, a, b, said in zip(
            poor, starts, ends, map(_differing, choices, goods), strict=True
        )
    ]
    headings = ("kernel", "shape", "unlike the rule", "trials", "start", "tuned")
    console.show(
        console.figures(headings, rows, texts=3),
        "speed as a share of that by this CPU's rule",
    )
    if args.json:
        write_json(
            args.json, {"poor": args.poor, "start": starts, "tuned": ends, "choices": choices}
        )
    return int(ExitCode.OK)


def _differing(choice: Mapping[str, object], rule: Mapping[str, object]) -> str:
    """What of a choice the rule would have otherwise."""
    parts = (f"{name} {choice[name]}" for name in choice if choice[name] != rule.get(name))
    return ", ".join(parts) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
