"""Count the instructions of one image on 64-bit Arm, under emulation: ours and ONNX Runtime's.

The counts are exact and the same every time, so that they can be recorded and checked. They are no
times: what an instruction takes is another matter, and emulation says nothing of it. --loops adds
the cycles that llvm-mca predicts for the hottest code.

Needs qemu-user with plugins and a C compiler for 64-bit Arm; ONNX Runtime also needs its wheel for
Arm, from pip download onnxruntime --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64.

    python benchmarks/instructions.py --steps --loops 5
    python benchmarks/instructions.py --preset deit-small --onnxruntime onnxruntime-1.32.0-....whl
    python benchmarks/instructions.py --check benchmarks/records/instructions.json
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsb_tvm import console
from gsb_tvm.command import Parser, run
from gsb_tvm.dialect.errors import ExitCode, TargetError, ToolchainError, UsageError, VerifyError
from gsb_tvm.runtime import emulate
from gsb_tvm.targets import Profile, resolve
from measuring.arguments import PRESETS, add_outputs, at_least, check_outputs, documented
from measuring.output import say, write_json

if TYPE_CHECKING:
    from counting.loops import Loop
    from counting.ours import Counted
    from counting.records import Figure
    from counting.steps import Row

PREDICTED_FOR = (
    "cortex-a53",
    "cortex-a72",
    "cortex-a76",
    "neoverse-n1",
    "cortex-x1",
    "apple-m1",
)


def parser() -> Parser:
    """Arguments of the command."""
    found = documented("benchmarks/instructions.py", __doc__)
    found.add_argument("--model", type=Path, help="a network, ONNX (default: the demo model)")
    found.add_argument("--float", type=Path, help="the same in float, for ONNX Runtime")
    found.add_argument("--preset", choices=PRESETS, help="networks of that shape, exported")
    found.add_argument(
        "--target", default="llvm -mcpu=cortex-a72", help="as for gsb-tvm compile (%(default)s)"
    )
    found.add_argument("--onnxruntime", type=Path, help="its wheel or library for 64-bit Arm")
    found.add_argument("--steps", action="store_true", help="also a row for each kernel")
    found.add_argument("--loops", type=at_least(1), help="also so many pieces of hottest code")
    found.add_argument("--record", type=Path, help="write the figures to this file of records")
    found.add_argument("--check", type=Path, help="fail where a figure exceeds this file's")
    add_outputs(found, plot=False)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(parser(), execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Count, print tables, and write or check what was asked for."""
    check_outputs(args.json)
    check_outputs(args.record)
    profile = resolve(args.target)
    cpu = emulated(profile)
    # Here, where arguments have been checked: they take seconds to import.
    from counting import ours, records, steps, table

    recorded = records.read(args.check) if args.check else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, dense = models(args, folder)
        say(f"counting {model.name}")
        counted = ours.counted(model, profile, cpu, folder)
        whole = counted.whole.instructions
        figures = [records.Figure(model.stem, "ours", profile.mcpu, whole)]
        figures += others(args.onnxruntime, [model, dense], cpu, folder)
        rows = steps.rows(counted, model.name)
        console.show(f"one image, emulated {profile.mcpu}", table.engines(figures))
        if args.steps:
            console.show("", table.kernels(rows, steps.by_kind(rows), whole))
        found = predicted(rows, counted, args.loops) if args.loops else []
        if found:
            console.show("", table.predictions(found, PREDICTED_FOR, whole), table.mixes(found))
            console.show(table.PREDICTED)
    if args.json:
        write_json(args.json, {"engines": figures, "kernels": plain(rows), "code": code(found)})
    if args.record:
        records.record(args.record, figures)
    if excess := records.excess(figures, recorded) if args.check else []:
        raise VerifyError(" ".join(excess))
    return int(ExitCode.OK)


def emulated(profile: Profile) -> str:
    """QEMU's CPU for a target.

    Raises
    ------
    TargetError
        It is not 64-bit Arm.
    ToolchainError
        There is no QEMU for it.
    """
    if profile.arch != "aarch64":
        raise TargetError(
            f"{profile.name}: instructions are counted on 64-bit Arm. Choose such a target, "
            "llvm -mcpu=cortex-a72 for one."
        )
    found = emulate.command(profile)
    if found is None:
        raise ToolchainError(f"cannot count for {profile.name}: {emulate.skip_reason(profile)}.")
    return found[-1] if found else "max"


def models(args: argparse.Namespace, folder: Path) -> tuple[Path, Path | None]:
    """The binary network and the float one, which may lack.

    Raises
    ------
    UsageError
        Arguments exclude each other, or a file does not exist.
    """
    from gsb_tvm.models import demo

    if args.preset and (args.model or args.float):
        raise UsageError("--preset excludes --model and --float. Leave one of them out.")
    for path in (args.model, args.float):
        if path and not path.is_file():
            raise UsageError(f"{path}: there is no such file.")
    if not args.preset:
        return args.model or Path(demo.__file__).with_name("gsb_digits.onnx"), args.float
    from comparison.models import exported

    kinds = ("gsb", "float") if args.onnxruntime else ("gsb",)
    files = [exported(args.preset, kind, 1, folder) for kind in kinds]
    return files[0], files[1] if args.onnxruntime else None


def others(
    path: Path | None, files: Sequence[Path | None], cpu: str, folder: Path
) -> "list[Figure]":
    """Figures of ONNX Runtime on the networks that there are."""
    if path is None:
        return []
    from counting import onnx_runtime
    from counting.records import Figure

    library = onnx_runtime.library(path, folder)
    found = []
    for file in filter(None, files):
        say(f"counting {file.name} by ONNX Runtime: minutes")
        counted = onnx_runtime.counted(file, cpu, library, folder)
        engine = f"ONNX Runtime {counted.version}"
        found.append(Figure(file.stem, engine, cpu, counted.instructions))
    return found


def predicted(
    rows: "Sequence[Row]", counted: "Counted", count: int
) -> "list[tuple[Row, Loop, dict[str, float | None]]]":
    """The hottest code of all kernels, and cycles by CPU."""
    from counting.loops import loop, pieces, predicted_cycles

    found = [(row, piece) for row in rows for piece in pieces(row.blocks)[:count]]
    found.sort(key=lambda pair: pair[1].instructions * pair[1].executions, reverse=True)
    loops = [(row, loop(piece, counted.file)) for row, piece in found[:count]]
    return [
        (row, each, {cpu: predicted_cycles(each.lines, cpu) for cpu in PREDICTED_FOR})
        for row, each in loops
    ]


def plain(rows: "Sequence[Row]") -> list[dict[str, object]]:
    """Rows for JSON."""
    names = ("kind", "kernel", "shape", "calls", "instructions", "macs")
    return [{name: getattr(row, name) for name in names} for row in rows]


def code(found: "Sequence[tuple[Row, Loop, dict[str, float | None]]]") -> list[dict[str, object]]:
    """Hottest code for JSON; its cycles are predictions."""
    return [
        {
            "kernel": row.kernel,
            "shape": row.shape,
            "executions": loop.executions,
            "macs": loop.products,
            "instructions": loop.lines,
            "predicted_cycles": cycles,
        }
        for row, loop, cycles in found
    ]


if __name__ == "__main__":
    sys.exit(main())
