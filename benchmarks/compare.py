"""Time a compiled GSB network beside what a user would run instead, and check the outputs.

Every engine runs in a process of its own, pinned to as many cores as threads. All are loaded first,
then timed in rounds A B C, A B C, so that a slow spell of the machine hits all of them. An engine
that cannot run has a row that says why.

    python benchmarks/compare.py --json figures.json --plot figures.svg
    python benchmarks/compare.py --batch 1,8 --threads 1,2 --isa avx2
    python benchmarks/compare.py --engines ours,ort-gsb,ort-fp32 --target "llvm -mcpu=haswell"
    python benchmarks/compare.py --model mine.onnx --float-model mine-float.onnx

Opponents beyond ONNX Runtime need ``pip install "gsb-tvm[bench]"``.
"""

import argparse
import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from comparison import isa
from comparison.cell import Plan, Preparations, measure
from comparison.engines import ENGINES, Engine, chosen
from comparison.jobs import Job
from comparison.models import Source, models
from comparison.picture import draw
from comparison.rows import Cell
from comparison.table import LEGEND, table, title
from gsb_tvm import console
from gsb_tvm.command import Parser, run
from gsb_tvm.dialect.errors import ExitCode, TargetError, UsageError
from gsb_tvm.targets.host import cpu_name
from measuring.arguments import (
    PRESETS,
    add_outputs,
    add_timing,
    at_least,
    check_outputs,
    documented,
    numbers,
)
from measuring.machine import choose_cores, runnable
from measuring.output import say, write_json


def parser() -> Parser:
    """Arguments of the command."""
    found = documented("benchmarks/compare.py", __doc__)
    found.add_argument("--preset", choices=PRESETS, help="network shape (default deit-small)")
    found.add_argument("--model", type=Path, help="a binary network of your own, ONNX")
    found.add_argument("--float-model", type=Path, help="a float network of your own, ONNX")
    found.add_argument("--calibration", type=Path, help="images to quantise with, .npy float32")
    names = ", ".join(each.name for each in ENGINES)
    found.add_argument("--engines", default="all", help=f"which, by commas: {names} (default all)")
    found.add_argument("--batch", type=numbers(1), default=(1,), help="such as 1,8 (default 1)")
    found.add_argument("--threads", type=numbers(1), default=(1,), help="such as 1,2 (default 1)")
    found.add_argument("--cores", type=numbers(0), default=(), help="to run on (default from 0)")
    held = found.add_mutually_exclusive_group()
    held.add_argument(
        "--isa", choices=isa.ISAS, default=isa.NATIVE, help="hold all engines to it that can be"
    )
    held.add_argument("--target", help="what ours is compiled for, as gsb-tvm compile takes it")
    found.add_argument(
        "--cold", type=at_least(0), default=3, help="cold starts of each engine (default 3)"
    )
    found.add_argument(
        "--work", type=Path, help="folder to keep models in and find them again (made in 0 s then)"
    )
    add_timing(found, rounds=10, seconds=0.5)
    add_outputs(found, plot=True)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parser(), execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Measure every cell of the grid, show each as it is done."""
    check_outputs(args.json, args.plot)
    engines, source, target = chosen(args.engines), source_of(args), target_of(args)
    cores = {threads: choose_cores(threads, args.cores) for threads in args.threads}
    plan = Plan(args.rounds, args.seconds, args.cold, args.lock)
    name = source.preset or ", ".join(path.name for path in (source.gsb, source.dense) if path)
    console.show(f"{name} on {cpu_name()}")
    cells: list[Cell] = []
    with tempfile.TemporaryDirectory() as scratch:
        work = args.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        for cell in grid(args, engines, source, target, cores, plan, work):
            console.show("", title(cell), table(cell))
            cells.append(cell)
    console.show("", LEGEND)
    if args.json:
        write_json(args.json, {"model": name, "cells": cells})
    if args.plot:
        draw(cells, f"{name} on {cpu_name()}", args.plot)
    return int(ExitCode.VERIFY if any(map(is_wrong, cells)) else ExitCode.OK)


def grid(
    args: argparse.Namespace,
    engines: Sequence[Engine],
    source: Source,
    target: str,
    cores: dict[int, tuple[int, ...]],
    plan: Plan,
    work: Path,
):
    """Cells for every batch and number of threads; files of a batch are prepared once."""
    preparations = Preparations(say)
    for batch, threads in itertools.product(args.batch, args.threads):
        say(f"batch {batch}, threads {threads}")
        files = models(source, batch, work)
        common = Job(
            engine="",
            model="",
            preset=source.preset if source.dense is None else "",
            images="",
            calibration="",
            work=str(work),
            batch=batch,
            target=target,
            isa=args.isa,
            cores=cores[threads],
            priority=args.priority,
        )
        yield measure(engines, files, common, plan, preparations, say)


def source_of(args: argparse.Namespace) -> Source:
    """Where models come from.

    Raises
    ------
    UsageError
        A preset and files are given, or a file does not exist.
    """
    own = (args.model, args.float_model)
    if args.preset and any(own):
        raise UsageError(
            "--preset and --model exclude each other. Give --model and --float-model for networks "
            "of your own, --preset for one of ours."
        )
    for path in (*own, args.calibration):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: there is no such file.")
    return Source("" if any(own) else args.preset or "deit-small", *own, args.calibration)


def target_of(args: argparse.Namespace) -> str:
    """Target of ours.

    Raises
    ------
    TargetError
        This machine does not run it.
    """
    if not isa.is_runnable(args.isa):
        raise TargetError(f"--isa: this machine does not have {args.isa}.")
    target = args.target or isa.target_of(args.isa)
    runnable(target)
    return target


def is_wrong(cell: Cell) -> bool:
    """Whether the compiled binary model has failed the comparison with ONNX Runtime."""
    return any(row.verified and row.verified.verdict == "failed" for row in cell.rows)


if __name__ == "__main__":
    sys.exit(main())
