"""``gsb-tvm run``: run a compiled model on arrays."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gsb_tvm import command
from gsb_tvm.dialect.errors import OutputError

_SHOWN = 5


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(prog, "Run a compiled model once and show or save its outputs.")
    add = made.add_argument
    add("artefact", type=Path, metavar="ARTEFACT", help="a compiled model (.so)")
    command.add_inputs(made)
    command.add_threads(made)
    command.add_gpu(made)
    add("-o", "--output", type=Path, metavar="OUT.npz", help="write all outputs, by name")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.run") -> int:
    """Run the command and return its exit code."""
    return command.run(parser(prog), _execute, sys.argv[1:] if argv is None else argv)


def _execute(args: argparse.Namespace) -> int:
    from gsb_tvm.inputs import read_inputs
    from gsb_tvm.loading import load

    module = load(args.artefact, args.threads, args.gpu)
    result = module(read_inputs(args.input, module.metadata.program.inputs))
    names = [spec.name for spec in module.metadata.program.outputs]
    outputs = result if isinstance(result, dict) else {names[0]: result}
    if args.output is not None:
        _save(args.output, outputs)
    command.require_stdout(lambda: _show(outputs))
    return 0


def _save(path: Path, outputs: Mapping[str, Any]) -> None:
    import io

    import numpy as np

    from gsb_tvm.runtime.outfile import write_file

    if path.suffix != ".npz":
        raise OutputError(f"{path}: expected a name that ends in .npz.")
    buffer = io.BytesIO()
    np.savez(buffer, **outputs)
    write_file(path, buffer.getvalue())


def _show(outputs: Mapping[str, Any]) -> None:
    import numpy as np

    for name, array in outputs.items():
        flat = np.asarray(array).reshape(-1)
        order = np.argsort(-flat, kind="stable")[:_SHOWN]
        largest = ", ".join(f"[{i}] {flat[i]:.6g}" for i in order)
        print(f"{name} {array.dtype} {' x '.join(map(str, array.shape))}: largest {largest}")


if __name__ == "__main__":
    sys.exit(main())
