"""``gsb-tvm bench``: time a compiled model, as a whole and step by step."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gsb_tvm import command
from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.targets import resolve, take_target


def parser(prog: str) -> command.Parser:
    """Parser of everything but the target's words, which :func:`main` takes out before."""
    made = command.Parser(prog, "Time a compiled model, or an ONNX model, which is compiled first.")
    add = made.add_argument
    add("model", type=Path, metavar="MODEL", help="a compiled model (.so), or an ONNX file (.onnx)")
    command.add_inputs(made)
    command.add_threads(made)
    command.add_gpu(made)
    add("--seconds", type=float, default=3.0, metavar="S", help="time to run for (default 3)")
    add("--runs", type=int, metavar="N", help="number of runs, instead of --seconds")
    add("--batch", type=int, metavar="N", help="images of a run, where the batch is open")
    add("--warmup", type=int, default=10, metavar="N", help="runs before them (default 10)")
    add("--profile", action="store_true", help="also the time of each step, layer and operator")
    add("--no-limit", action="store_true", help="do not time what the machine can do at best")
    add("--json", action="store_true", help="print one JSON object on standard output")
    compiling = made.add_argument_group("for an ONNX file, as for compile")
    compiling.add_argument("--target", metavar="TARGET ...", help="must be one that runs here")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.bench") -> int:
    """Run the command and return its exit code."""
    target, rest = take_target(sys.argv[1:] if argv is None else argv)
    return command.run(parser(prog), lambda args: _execute(args, target), rest)


def _execute(args: argparse.Namespace, target: Sequence[str] | None) -> int:
    _check(args, target)
    import msgspec

    from gsb_tvm.benchmark import Plan, loaded, measure, profiled
    from gsb_tvm.runtime.workers import check_threads
    from gsb_tvm.step_work import work_of

    check_threads(args.threads)
    plan = Plan(args.threads, args.seconds, args.runs, args.warmup, args.gpu)
    with _compiled(args, target) as path:
        batch = None if _is_onnx(args) else args.batch
        model = loaded(path, plan, args.input, batch)
        whole = model.module.whole(model.arrays) if args.profile else None
        works = [] if whole is None else work_of(whole, str(args.model))
        figures = measure(model, plan, path.stat().st_size)
        if args.profile:
            profile = profiled(model, plan, works, has_limit=not args.no_limit)
            figures = msgspec.structs.replace(figures, profile=profile)
    if args.json:
        found = msgspec.to_builtins(figures)
        command.require_stdout(lambda: print(json.dumps(found)))
    else:
        from gsb_tvm.bench_report import show

        command.require_stdout(lambda: show(figures))
    return 0


def _check(args: argparse.Namespace, target: Sequence[str] | None) -> None:
    if args.seconds <= 0 or args.warmup < 0 or (args.runs is not None and args.runs < 1):
        raise UsageError("--seconds must be above 0, --runs at least 1, --warmup at least 0.")
    if not _is_onnx(args) and target is not None:
        raise UsageError(
            f"{args.model}: --target is for an ONNX file (.onnx), which is compiled first. "
            "Leave it out, or name the ONNX file."
        )
    if args.batch is not None and (args.batch < 1 or (args.input and not _is_onnx(args))):
        raise UsageError("--batch must be at least 1, and does not go with --input.")


def _is_onnx(args: argparse.Namespace) -> bool:
    return bool(args.model.suffix == ".onnx")


@contextmanager
def _compiled(args: argparse.Namespace, target: Sequence[str] | None) -> Iterator[Path]:
    """The artefact to time; that of an ONNX model is gone afterwards."""
    if not _is_onnx(args):
        yield args.model
        return
    from gsb_tvm import console
    from gsb_tvm.driver import compile_model
    from gsb_tvm.options import Options
    from gsb_tvm.runtime.cuda.driver import CudaDevice
    from gsb_tvm.runtime.outfile import scratch_folder
    from gsb_tvm.targets import missing_here

    profile = resolve(["native"] if target is None else target)
    if profile.gpu is not None:
        CudaDevice(args.gpu or 0)  # before the work of compiling: there may be none
    if lacks := missing_here(profile):
        raise UsageError(
            f"{profile.name}: this machine lacks {', '.join(lacks)}, so nothing can be timed on it."
        )
    with scratch_folder() as folder:
        out = folder / "model.so"
        with console.observer(quiet=args.json) as observer:
            compile_model(
                args.model, profile, Options(out, batch=args.batch, verify=False), observer
            )
        yield out


if __name__ == "__main__":
    sys.exit(main())
