"""``gsb-tvm db``: files of tuning records: check, list, plot, merge, prune, export, import."""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsb_tvm import command
from gsb_tvm.dialect.errors import UsageError

if TYPE_CHECKING:
    from gsb_tvm.schedules.records import Fault, Key, Loaded, Record
    from gsb_tvm.schedules.standings import Standing


def parser(prog: str) -> command.Parser:
    """Parser of the command: a word for what to do, then its arguments."""
    made = command.Parser(
        prog, "Check, list, plot, merge, prune, export and import files of tuning records."
    )
    verbs = made.add_subparsers(dest="what", metavar="WHAT", required=True)

    def verb(name: str, execute: Callable[[argparse.Namespace], None], text: str) -> command.Parser:
        found = verbs.add_parser(name, description=f"{text[:1].upper()}{text[1:]}.", help=text)
        found.set_defaults(execute=execute)
        found.add_argument("file", type=Path, metavar="FILE", help="of records")
        return found

    verb("check", _check, "fail where a line is no record")
    listed = verb("list", _list, "show each kernel's fastest choice")
    listed.add_argument("--json", action="store_true", help="print all of it as JSON")
    merged = verb("merge", _merge, "add the records of other files that are not there yet")
    merged.add_argument("other", type=Path, nargs="+", metavar="OTHER", help="files to read")
    pruned = verb(
        "prune", _prune, "keep each kernel's fastest choice and what failed, nothing else"
    )
    pruned.add_argument(
        "--better", action="store_true", help="keep only choices that replace the rule's"
    )
    plotted = verb("plot", _plot, "draw each kernel's best time by trial")
    plotted.add_argument("output", type=Path, metavar="OUTPUT", help="a picture: .svg, .png, .pdf")
    exported = verb("export", _export, "write the records as JSON, for other programs")
    exported.add_argument("output", type=Path, metavar="OUTPUT", help="a file to write")
    imported = verb("import", _import, "add records from JSON that are not there yet")
    imported.add_argument("input", type=Path, metavar="INPUT", help="a file that export wrote")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.db") -> int:
    """Run the command and return its exit code."""

    def execute(args: argparse.Namespace) -> int:
        args.execute(args)
        return 0

    words = sys.argv[1:] if argv is None else argv
    return command.run(parser(prog), execute, words, needs_tvm=False)


def _check(args: argparse.Namespace) -> None:
    found = _load(args.file)
    if found.faults:
        raise UsageError(
            f"{args.file}: {_lines(found.faults)} no records ({_kinds(found.faults)}) beside "
            f"{_records(len(found.records))}. gsb-tvm db prune removes them."
        )
    command.require_stdout(lambda: print(_summary(found)))


def _list(args: argparse.Namespace) -> None:
    from gsb_tvm import console
    from gsb_tvm.schedules.choices import text_of
    from gsb_tvm.schedules.standings import best

    found = _load(args.file)
    fastest, trials = best(found.records), Counter(record.key for record in found.records)
    if args.json:
        _print_json([_row(each, trials) for each in fastest.values()])
        return

    def show() -> None:
        rows = [
            [
                *_kernel(each.record),
                each.record.cpu,
                text_of(each.record.choice),
                f"{each.record.time * 1e6:.1f}",
                f"{1 / each.ratio:.2f}x",
                str(trials[key]),
            ]
            for key, each in fastest.items()
        ]
        titles = ("kernel", "shape", "machine", "choice", "µs", "gain", "trials")
        console.show(console.figures(titles, rows, texts=4), "", _summary(found))

    command.require_stdout(show)


def _merge(args: argparse.Namespace) -> None:
    _add(args.file, [record for other in args.other for record in _load(other).records])


def _prune(args: argparse.Namespace) -> None:
    from gsb_tvm.schedules.records import rewrite

    before, after = rewrite(args.file, _better if args.better else _worth_keeping)
    text = (
        f"{_records(len(after))} kept, {len(before.records) - len(after)} dropped, "
        f"{sum(before.faults.values())} other lines removed"
    )
    command.require_stdout(lambda: print(text))


def _plot(args: argparse.Namespace) -> None:
    from gsb_tvm.db_plot import check_picture, draw

    check_picture(args.output)
    found = _load(args.file)
    draw(found.records, [" ".join(_kernel(record)) for record in found.records], args.output)
    command.require_stdout(lambda: print(_summary(found)))


def _export(args: argparse.Namespace) -> None:
    import msgspec

    from gsb_tvm.runtime.outfile import write_file

    found = _load(args.file)
    text = msgspec.json.format(msgspec.json.encode(found.records, order="deterministic"))
    write_file(args.output, text + b"\n")
    command.require_stdout(lambda: print(_summary(found)))


def _import(args: argparse.Namespace) -> None:
    from gsb_tvm.schedules.records import from_json

    _add(args.file, from_json(args.input))


def _add(path: Path, found: Sequence["Record"]) -> None:
    """Add what is not there yet, and say how much that is."""
    from gsb_tvm.schedules.records import append

    new = _new(_load(path).records if path.exists() else (), found)
    append(path, new)
    text = f"{_records(len(new))} added, {len(found) - len(new)} were there"
    command.require_stdout(lambda: print(text))


def _load(path: Path) -> "Loaded":
    from gsb_tvm.schedules.records import load

    return load(path)


def _worth_keeping(found: Sequence["Record"]) -> list["Record"]:
    """All of each kernel's fastest choice, and failures, which need not be tried again."""
    from gsb_tvm.schedules.standings import best

    fastest = {key: each.record.choice for key, each in best(found).items()}
    kept = _of_choices(found, fastest)
    return [record for record in found if record.failure or record in kept]


def _better(found: Sequence["Record"]) -> list["Record"]:
    """All of each kernel's fastest choice, where it is proven and faster than the rule's."""
    from gsb_tvm.schedules.standings import best
    from gsb_tvm.schedules.tunings import MARGIN

    fastest = {
        key: each.record.choice
        for key, each in best(found).items()
        if each.is_proven and each.ratio <= MARGIN
    }
    return _of_choices(found, fastest)


def _of_choices(
    found: Sequence["Record"], choices: Mapping["Key", Mapping[str, object]]
) -> list["Record"]:
    """Records of a choice of some kernels, and those that tell which moments were quiet."""
    from gsb_tvm.schedules.standings import quietest

    kept = [record for record in found if choices.get(record.key) == record.choice]
    quiet = [r for r in quietest([*kept, *found]) if r.key in choices]
    return [record for record in found if record in kept or record in quiet]


def _new(there: Sequence["Record"], found: Sequence["Record"]) -> list["Record"]:
    """Those of ``found`` that are not there, once each."""
    from gsb_tvm.schedules.records import to_line

    known = {to_line(record) for record in there}
    return list({line: one for one in found if (line := to_line(one)) not in known}.values())


def _row(standing: "Standing", trials: Counter["Key"]) -> dict[str, object]:
    import msgspec

    record = standing.record
    gain = {"gain": 1 / standing.ratio, "trials": trials[record.key]}
    return {**msgspec.to_builtins(record), **gain}


def _print_json(rows: list[dict[str, object]]) -> None:
    import json

    command.require_stdout(lambda: print(json.dumps(rows, indent=2)))


def _kernel(record: "Record") -> tuple[str, str]:
    """A spec's family, and the numbers of its rows and columns."""
    from gsb_tvm.dialect.specs import decode
    from gsb_tvm.dialect.work import shape_text

    family, _, rest = record.kernel.partition(" ")
    try:
        return family, shape_text(decode(record.kernel))
    except Exception:  # of another version of the package, which had other specs
        return family, rest


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"


def _lines(faults: Counter["Fault"]) -> str:
    total = faults.total()
    return f"{total} line is" if total == 1 else f"{total} lines are"


def _kinds(faults: Counter["Fault"]) -> str:
    return ", ".join(f"{count} {fault}" for fault, count in sorted(faults.items()))


def _summary(found: "Loaded") -> str:
    failed = sum(bool(record.failure) for record in found.records)
    kernels = len({record.key for record in found.records})
    faults = found.faults
    skipped = f"; {faults.total()} lines skipped ({_kinds(faults)})" if faults else ""
    return f"{_records(len(found.records))} of {kernels} kernels, {failed} failed{skipped}"


if __name__ == "__main__":
    sys.exit(main())
