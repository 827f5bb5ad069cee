"""Compile what a machine with a GPU checks and times, where there is none.

    python -m tests.gpu.prepare FOLDER --model gsb-deit-small.onnx

The model has an open batch: ``python -m gsb_tvm.models.export --preset deit-small --dynamic-batch
--realistic 0``. Beside the folder the machine needs this checkout; packages that it may lack are
put into the folder with ``--site 3.12``, the version of its Python.
"""

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

import gsb_tvm
from benchmarks.gpu import hopper, limits
from gsb_tvm.command import Parser, batches, run
from gsb_tvm.dialect.errors import ExitCode, ToolchainError, VerifyError
from gsb_tvm.driver import compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.options import Options
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.outfile import write_file
from gsb_tvm.runtime.verify import EXACT, row_errors
from gsb_tvm.targets import resolve
from tests.gpu import folder as layout
from tests.gpu.cases import planned, planned_floats
from tests.gpu.compiling import kernels
from tests.gpu.drawing import IMAGES, Array, digest, images, nudged

_CALLS, _TRIED = 4, 200  # sets of images that are kept, and that are tried
_PACKAGES = ("msgspec", "apache-tvm-ffi", "typing-extensions")
_FOR_BUILDERS = ("3rdparty", "cython", "include", "src")  # of apache-tvm-ffi: half of its bytes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = Parser("python -m tests.gpu.prepare", __doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="to write; made where it is missing")
    parser.add_argument("--model", type=Path, help="GSB DeiT-Small with an open batch")
    parser.add_argument("--arch", default="sm_90", help="of the GPU (default sm_90)")
    parser.add_argument("--jobs", type=int, default=1, help="kernels compiled at once (default 1)")
    parser.add_argument(
        "--batch",
        type=batches,
        default=(1, 8, 64, 256),
        help="batches of the model (default 1,8,64,256)",
    )
    parser.add_argument("--site", metavar="VERSION", help="Python there: packages for it, too")
    return run(parser, execute, sys.argv[1:] if argv is None else argv)


def execute(args: argparse.Namespace) -> int:
    """Compile everything, tell what it is."""
    (args.folder / "kernels").mkdir(parents=True, exist_ok=True)
    models = [model(args.folder, "demo", model_path(), None, args.arch)]
    if args.model is not None:
        models.append(model(args.folder, layout.DEIT_SMALL, args.model, args.batch, args.arch))
    write_file(args.folder / layout.LIMITS, limits.compiled(args.arch))
    if hopper.ARCH.startswith(args.arch):
        write_file(args.folder / layout.HOPPER_LIMITS, hopper.compiled())
    wanted = [*planned(resolve(f"cuda -arch={args.arch}")), *planned_floats()]
    cases = kernels(args.folder, wanted, args.arch, args.jobs)
    if args.site:
        packages(args.folder / layout.SITE, args.site)
    found = layout.Contents(
        arch=args.arch, versions=meta.versions(), cases=tuple(cases), models=tuple(models)
    )
    write_file(args.folder / layout.CONTENTS, msgspec.json.encode(found))
    size = sum(path.stat().st_size for path in args.folder.rglob("*") if path.is_file())
    print(f"{args.folder}: {len(cases)} kernels, {len(models)} models, {size / 1e6:.1f} MB")
    return int(ExitCode.OK)


def model(
    folder: Path, name: str, source: Path, sizes: Sequence[int] | None, arch: str
) -> layout.Model:
    """Compile a model for the GPU and for this CPU, whose outputs are the references.

    Raises
    ------
    VerifyError
        There are no images that do not lie on an edge of rounding.
    """
    few = {size: min(size, IMAGES) for size in sizes or (1,)}
    on_gpu, on_cpu = folder / f"{name}.so", folder / f"{name}-cpu.so"
    options = {"verify": False, "by_rule": True}
    compile_model(source, resolve(f"cuda -arch={arch}"), Options(on_gpu, sizes, **options))
    drawn = None if sizes is None else sorted(set(few.values()))
    compile_model(source, resolve("native"), Options(on_cpu, drawn, **options))
    found = {each: _stable(gsb_tvm.load(on_cpu), name, each) for each in set(few.values())}
    for path in (on_cpu, on_cpu.with_suffix(".json"), on_gpu.with_suffix(".json")):
        path.unlink()
    made = layout.Model(
        name=name,
        references=tuple(
            layout.Reference(batch=size, drawn=each, seeds=found[each][0], digest=found[each][1])
            for size, each in few.items()
        ),
    )
    arrays = {each.key: found[each.drawn][2] for each in made.references}
    file = io.BytesIO()
    np.savez(file, **arrays)
    write_file(layout.references(folder, made), file.getvalue())
    return made


def _stable(module: gsb_tvm.Module, name: str, drawn: int) -> tuple[tuple[int, ...], str, Array]:
    """Seeds of images that rounding does not move, their digest, and what a model makes of them."""
    (spec,) = module.metadata.program.inputs
    seeds, outputs = [], []
    for seed in range(_TRIED):
        runs = [_called(module, x, drawn) for x in nudged(images(spec, drawn, seed))]
        if all((row_errors([run], [runs[0]], len(run)) < EXACT).all() for run in runs):
            seeds.append(seed)
            outputs.append(runs[0])
        if len(seeds) == _CALLS:
            return tuple(seeds), digest(spec, drawn, seeds), np.stack(outputs)
    raise VerifyError(
        f"{name}: of {_TRIED} sets of images only {len(seeds)} do not lie on an edge of rounding, "
        f"expected {_CALLS}. Take another model."
    )


def _called(module: gsb_tvm.Module, x: Array, drawn: int) -> Array:
    return np.concatenate([module(x[at : at + drawn]) for at in range(0, len(x), drawn)])


def packages(target: Path, version: str) -> None:
    """Put packages for Linux on x86-64 into a folder.

    Raises
    ------
    ToolchainError
        pip does not get them.
    """
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--only-binary=:all:", f"--python-version={version}", "--implementation=cp"]
    command += [f"--platform=manylinux{each}_x86_64" for each in ("_2_28", "_2_17", "2014")]
    done = subprocess.run(
        [*command, f"--target={target}", *map(_pinned, _PACKAGES)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ToolchainError(
            f"pip does not get packages for Python {version} ({done.stderr.strip()[-300:]}). "
            "Leave --site out where the machine has msgspec and apache-tvm-ffi."
        )
    for name in _FOR_BUILDERS:
        shutil.rmtree(target / "tvm_ffi" / name, ignore_errors=True)


def _pinned(package: str) -> str:
    from importlib.metadata import version

    return f"{package}=={version(package)}"


if __name__ == "__main__":
    sys.exit(main())
