"""``gsb-tvm inspect``: what an artefact says about itself; none of its code runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gsb_tvm import command


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(prog, "Show target, inputs, outputs and layers of an artefact.")
    made.add_argument("artefact", type=Path, metavar="ARTEFACT", help="a compiled model (.so)")
    made.add_argument("--json", action="store_true", help="print the metadata as JSON")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.inspect") -> int:
    """Run the command and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return command.run(parser(prog), _execute, words, needs_tvm=False)


def _execute(args: argparse.Namespace) -> int:
    from gsb_tvm import console
    from gsb_tvm.runtime.metadata import Metadata, Program, Tensor, read

    metadata = read(args.artefact)

    def tensor(spec: Tensor) -> str:
        return f"{spec.name} {spec.dtype} {' x '.join(map(str, spec.shape))}"

    def program(found: Program) -> str:
        memory = found.memory
        return (
            f"batch {found.batch}, {console.count(memory.total(1))}B of memory for a call, "
            f"{console.count(memory.part_bytes)}B more for each further thread"
        )

    def show(found: Metadata) -> None:
        made, first = found.versions, found.program
        pairs = [
            ("layers", console.layer_summary(first.layers)),
            ("model", f"{found.model.name}, sha256 {found.model.sha256}"),
            ("target", found.target.text),
            ("needs", " ".join(found.target.required_features) or "nothing beyond the baseline"),
            *(("input", tensor(spec)) for spec in first.inputs),
            *(("output", tensor(spec)) for spec in first.outputs),
            *(("program", program(each)) for each in found.programs if each.batch),
            ("made with", f"gsb-tvm {made.gsb_tvm}, TVM {made.tvm}, tvm-ffi {made.tvm_ffi}"),
        ]
        console.show(console.layer_table(first.layers), "", console.fields(pairs))

    if args.json:
        command.require_stdout(lambda: print(metadata.json().decode(), end=""))
    else:
        command.require_stdout(lambda: show(metadata))
    return 0


if __name__ == "__main__":
    sys.exit(main())
