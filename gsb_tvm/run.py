"""``gsb-tvm run``: run a compiled model on arrays."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gsb_tvm import command
from gsb_tvm.dialect.errors import OutputError, UsageError

if TYPE_CHECKING:
    from gsb_tvm.runtime.metadata import Tensor

_SHOWN = 5


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    made = command.Parser(prog, "Run a compiled model once and show or save its outputs.")
    add = made.add_argument
    add("artefact", type=Path, metavar="ARTEFACT", help="a compiled model (.so)")
    add(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a .npy file for each input, in order or by name; default: random numbers, seed 0",
    )
    add("-o", "--output", type=Path, metavar="OUT.npz", help="write all outputs, by name")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.run") -> int:
    """Run the command and return its exit code."""
    return command.run(parser(prog), _execute, sys.argv[1:] if argv is None else argv)


def _execute(args: argparse.Namespace) -> int:
    from gsb_tvm.runtime.session import load

    module = load(args.artefact)
    given = _read(args.input, module.metadata.inputs)
    result = module(given)
    names = [spec.name for spec in module.metadata.outputs]
    outputs = result if isinstance(result, dict) else {names[0]: result}
    if args.output is not None:
        _save(args.output, outputs)
    command.require_stdout(lambda: _show(outputs))
    return 0


def _read(words: Sequence[str], inputs: Sequence["Tensor"]) -> dict[str, Any]:
    import numpy as np

    from gsb_tvm.runtime.verify import draw

    if not words:
        rng = np.random.default_rng(0)
        return {spec.name: draw(spec, rng) for spec in inputs}
    names = [spec.name for spec in inputs]
    arrays: dict[str, Any] = {}
    for at, word in enumerate(words):
        name, equals, path = word.partition("=")
        if not equals:
            if at >= len(names):
                raise UsageError(f"{len(words)} inputs given, the model takes {len(names)}.")
            name, path = names[at], word
        arrays[name] = _array(Path(path))
    return arrays


def _array(path: Path) -> Any:
    import numpy as np

    try:
        array = np.load(path, allow_pickle=False)
    except OSError as err:
        raise UsageError(f"{path}: cannot be read ({err.strerror or err}).") from err
    except (ValueError, EOFError) as err:
        raise UsageError(f"{path}: not a .npy file with numbers ({err}).") from err
    if not isinstance(array, np.ndarray):
        raise UsageError(f"{path}: an archive of several arrays, expected a single .npy array.")
    return array


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
