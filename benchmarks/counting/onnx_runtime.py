"""Instructions of a float or binary model run by ONNX Runtime's build for 64-bit Arm."""

import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from comparison.models import input_shape
from counting import plugin
from gsb_tvm.dialect.errors import ToolchainError, UsageError

_SOURCE = Path(__file__).with_name("onnx_runtime.c")
_COMPILER = "aarch64-linux-gnu-gcc"
HOW_TO_GET = (
    "pip download onnxruntime --no-deps --only-binary=:all: --platform manylinux_2_28_aarch64"
)

# Part numbers by which ONNX Runtime tells Arm's cores apart: Arm ARM, MIDR_EL1; Linux, cputype.h.
_PARTS = {"cortex-a53": 0xD03, "cortex-a72": 0xD08, "cortex-a76": 0xD0B, "neoverse-n1": 0xD0C}
_CPUINFO = """\
processor\t: 0
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part:#x}
CPU revision\t: 3

"""
# One core: what is read of a machine beside /proc/cpuinfo. Without, the emulated program sees the
# host's files, and ONNX Runtime 1.32 crashes on an x86 host's /proc/cpuinfo.
_MACHINE = {
    "possible": "0",
    "present": "0",
    "cpu0/topology/cluster_cpus_list": "0",
    "cpu0/cache/index2/level": "2",
    "cpu0/cache/index2/size": "1024K",
    "cpu0/cache/index2/shared_cpu_list": "0",
}


@dataclass(frozen=True)
class Counted:
    """Instructions of one call, not the first, and the version of ONNX Runtime."""

    instructions: int
    version: str


def library(path: Path, folder: Path) -> Path:
    """Library of ONNX Runtime at ``path``: the file itself, or unpacked from a wheel.

    Raises
    ------
    UsageError
        It is neither.
    """
    if path.suffix != ".whl":
        if path.is_file():
            return path
        raise UsageError(f"{path}: there is no such file. To get ONNX Runtime: {HOW_TO_GET}")
    try:
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if "/libonnxruntime.so" in name]
            if names and "aarch64" in path.name:
                return Path(wheel.extract(names[0], folder))
    except (OSError, zipfile.BadZipFile) as err:
        raise UsageError(f"{path}: cannot be read as a wheel ({err}).") from err
    raise UsageError(f"{path}: expected a wheel of onnxruntime for aarch64. Get it: {HOW_TO_GET}")


def counted(model: Path, cpu: str, library: Path, folder: Path) -> Counted:
    """Count a call of ``model`` on one thread and a seeded image.

    Raises
    ------
    ToolchainError
        There is no cross compiler of GNU's, or no emulator.
    UsageError
        The model has not one input of float images, or the CPU is not one that is described here.
    VerifyError
        The program failed.
    """
    program = _built(folder)
    shape = input_shape(model)
    image, output = folder / "image", folder / "output"
    np.random.default_rng(1).standard_normal(shape, dtype=np.float32).tofile(image)
    graph = onnx.load(str(model), load_external_data=False).graph
    constants = {tensor.name for tensor in graph.initializer}
    name = next(value.name for value in graph.input if value.name not in constants)
    files = [str(path) for path in (library, model, image, output)]
    command = [str(program), *files, name, graph.output[0].name, *map(str, shape)]
    # It has a thread that sends reports, and which stays with them switched off.
    options = ("-E", "ORT_DISABLE_TELEMETRY=1", "-L", str(_machine(cpu, folder)))
    section = plugin.count(cpu, command, folder, *options)[-1]
    return Counted(section.instructions, library.name.partition(".so.")[2])


def _built(folder: Path) -> Path:
    program = folder / "onnx_runtime"
    command = [_COMPILER, "-O1", "-std=gnu11", "-o", str(program), str(_SOURCE), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as err:
        raise ToolchainError(
            f"{_COMPILER} is not installed, which brings the system that ONNX Runtime needs. "
            "Install it (Debian: apt install g++-aarch64-linux-gnu)."
        ) from err
    if done.returncode:
        raise ToolchainError(f"{_SOURCE.name} cannot be compiled: {done.stderr.strip()[:500]}")
    return program


def _machine(cpu: str, folder: Path) -> Path:
    """Root of an Arm system: the cross compiler's libraries, and what describes the machine."""
    if cpu not in _PARTS:
        known = ", ".join(_PARTS)
        raise UsageError(
            f"{cpu}: ONNX Runtime is counted on {known}. Choose one of them with --target."
        )
    loader = subprocess.run(
        [_COMPILER, "-print-file-name=ld-linux-aarch64.so.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    root = folder / "machine"
    texts = {f"sys/devices/system/cpu/{name}": f"{text}\n" for name, text in _MACHINE.items()}
    texts["proc/cpuinfo"] = _CPUINFO.format(part=_PARTS[cpu])
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    libraries = root / "lib"
    libraries.unlink(missing_ok=True)
    libraries.symlink_to(Path(loader.stdout.strip()).resolve().parent)
    return root
