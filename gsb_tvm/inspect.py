"""``gsb-tvm inspect``: what an artefact says about itself; none of its code runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gsb_tvm import command

if TYPE_CHECKING:
    from gsb_tvm.runtime.metadata import Metadata, Tensor
    from gsb_tvm.runtime.sections import Contents


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
    from gsb_tvm.runtime.metadata import contents, parse

    data = contents(args.artefact)
    metadata = parse(data, str(args.artefact))
    if args.json:
        command.require_stdout(lambda: print(metadata.json().decode(), end=""))
        return 0
    is_for_gpu = bool(metadata.target.gpu)
    machine = _on_gpu(metadata, data, str(args.artefact)) if is_for_gpu else _on_cpu(metadata)
    command.require_stdout(lambda: _show(metadata, machine))
    return 0


def _show(found: "Metadata", machine: Sequence[tuple[str, str]]) -> None:
    """Print it; ``machine`` is what concerns the machine that it is for."""
    from gsb_tvm import console

    made, first = found.versions, found.program
    pairs = [
        ("layers", console.layer_summary(first.layers)),
        ("model", f"{found.model.name}, sha256 {found.model.sha256}"),
        ("target", found.target.text),
        *(("input", _tensor(spec)) for spec in first.inputs),
        *(("output", _tensor(spec)) for spec in first.outputs),
        *machine,
        ("made with", f"gsb-tvm {made.gsb_tvm}, TVM {made.tvm}, tvm-ffi {made.tvm_ffi}"),
    ]
    console.show(console.layer_table(first.layers), "", console.fields(pairs))


def _tensor(spec: "Tensor") -> str:
    return f"{spec.name} {spec.dtype} {' x '.join(map(str, spec.shape))}"


def _on_cpu(found: "Metadata") -> list[tuple[str, str]]:
    from gsb_tvm.console import count

    features = " ".join(found.target.required_features)
    pairs = [("needs", features or "nothing beyond the baseline")]
    for program in found.programs:
        if program.batch:
            memory = program.memory
            text = (
                f"batch {program.batch}, {count(memory.total(1))}B of memory for a call, "
                f"{count(memory.part_bytes)}B more for each further thread"
            )
            pairs.append(("program", text))
    return pairs


def _on_gpu(found: "Metadata", data: "Contents", name: str) -> list[tuple[str, str]]:
    from gsb_tvm.console import count
    from gsb_tvm.runtime.cuda.actions import actions_of
    from gsb_tvm.runtime.cuda.contents import code_bytes, constant_bytes

    pairs = [
        ("needs", f"a GPU of {found.target.gpu} or a later one, and NVIDIA's driver"),
        ("constants", f"{count(constant_bytes(data, name))}B on the GPU"),
    ]
    for program in found.programs:
        code, memory = code_bytes(data, program, name), actions_of(program).memory_bytes
        batch = f"batch {program.batch}, " if program.batch else ""
        text = (
            f"{batch}{len(program.launches)} launches, {count(memory)}B on the "
            f"GPU for a call, {count(code.cubin)}B of machine code, {count(code.ptx)}B of PTX"
        )
        pairs.append(("program", text))
    return pairs


if __name__ == "__main__":
    sys.exit(main())
