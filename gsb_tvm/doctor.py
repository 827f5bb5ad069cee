"""``gsb-tvm doctor``: what is installed, what is missing, and what it would be needed for."""

import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from gsb_tvm import command
from gsb_tvm.dialect.errors import ExitCode, GsbError
from gsb_tvm.dialect.versions import PACKAGE, check_tvm, installed

_OPTIONAL = {
    "onnxruntime": 'verification after compiling: pip install "gsb-tvm[verify]"',
    "ziglang": 'cross compiling without a cross gcc: pip install "gsb-tvm[cross]"',
    "xgboost": 'a search that learns, when tuning: pip install "gsb-tvm[tune]"',
    "tornado": 'the tracker of a farm of boards: pip install "gsb-tvm[tune]"',
    "torch": 'training and exporting models: pip install "gsb-tvm[models]"',
}


@dataclass(frozen=True)
class Finding:
    """One thing looked for: what was found, and whether compiling for this machine needs it."""

    name: str
    found: str
    ok: bool
    needed: bool = False


def parser(prog: str) -> command.Parser:
    """Parser of the command."""
    return command.Parser(prog, "Show what is installed, and what is missing for which purpose.")


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.doctor") -> int:
    """Run the command; exit code 4 where something is missing that compiling here needs."""
    words = sys.argv[1:] if argv is None else argv
    return command.run(parser(prog), lambda _args: _execute(), words, needs_tvm=False)


def _execute() -> int:
    findings = [*_packages(), *_linkers(), *_emulators(), *_tiles(), _nvrtc(), *_gpus()]
    command.require_stdout(lambda: _show(findings))
    broken = any(finding.needed and not finding.ok for finding in findings)
    return int(ExitCode.TOOLCHAIN if broken else ExitCode.OK)


def _packages() -> list[Finding]:
    try:
        check_tvm()
        pair = Finding("TVM", f"{installed('apache-tvm')}, ffi {installed('apache-tvm-ffi')}", True)
    except GsbError as err:
        pair = Finding("TVM", str(err), ok=False, needed=True)
    found = [
        Finding("gsb-tvm", f"{PACKAGE}, Python {platform.python_version()}", ok=True),
        pair,
        Finding("onnx", installed("onnx") or "missing", bool(installed("onnx")), needed=True),
    ]
    for package, purpose in _OPTIONAL.items():
        version = installed(package)
        found.append(Finding(package, version or f"not installed; for {purpose}", bool(version)))
    return found


def _linkers() -> list[Finding]:
    from gsb_tvm.runtime.toolchains import find, missing
    from gsb_tvm.targets import resolve
    from gsb_tvm.targets.host import host

    found = []
    for arch in ("x86_64", "aarch64"):
        try:
            profile = resolve(f"llvm -mtriple={arch}-linux-gnu")
        except (GsbError, ImportError) as err:
            found.append(Finding(f"linker for {arch}", str(err), ok=False))
            continue
        names = [tool.name for tool in find(profile)]
        text = ", ".join(names) if names else missing(profile)
        needed = arch == host().arch
        found.append(Finding(f"linker for {arch}", text, bool(names), needed))
    return found


def _emulators() -> list[Finding]:
    found = []
    for arch in ("x86_64", "aarch64"):
        name = f"qemu-{arch}"
        path = shutil.which(name) or shutil.which(f"{name}-static")
        text = path or f"not found; to verify code for other {arch} CPUs: apt install qemu-user"
        found.append(Finding(name, text, path is not None))
    return found


def _tiles() -> list[Finding]:
    """On a CPU with AMX, whether this process may use it."""
    from gsb_tvm.targets.host import host
    from gsb_tvm.targets.permission import tile_features

    if refused := host().tiles_refused:
        text = f"refused by Linux ({refused}); code for this machine is made without it"
        return [Finding("AMX", text, ok=False)]
    return [Finding("AMX", "granted by Linux", ok=True)] if tile_features(host().features) else []


def _nvrtc() -> Finding:
    from gsb_tvm.runtime.cuda.nvrtc import supported, version

    try:
        known = [f"sm_{number}" for number in supported()]
        return Finding("NVRTC", f"{version()}, for {known[0]} to {known[-1]}", ok=True)
    except GsbError:
        text = 'not installed; for code for GPUs: pip install "gsb-tvm[cuda]"'
        return Finding("NVRTC", text, ok=False)


def _gpus() -> list[Finding]:
    """The driver and the GPUs that it knows; nothing here needs them but to run on them."""
    from gsb_tvm.runtime.cuda.api import Driver

    try:
        driver = Driver()
        found = [Finding("CUDA driver", f"for CUDA {driver.version()}", ok=True)]
        for number in range(driver.count()):
            arch = "sm_{}{}".format(*driver.capability(number))
            found.append(Finding(f"GPU {number}", f"{driver.name(number)}, {arch}", ok=True))
        return found
    except GsbError as err:
        return [Finding("CUDA driver", f"only for running on GPUs: {err}", ok=False)]


def _show(findings: Sequence[Finding]) -> None:
    from gsb_tvm import console

    pairs = [
        (f"{'ok' if f.ok else 'MISSING' if f.needed else '-':<8}{f.name}", f.found)
        for f in findings
    ]
    console.show(console.fields(pairs))


if __name__ == "__main__":
    sys.exit(main())
