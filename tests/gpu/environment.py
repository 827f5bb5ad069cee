"""What the machine is, and whether its driver does the least that all else needs."""

import platform
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.gpu.limits import NOTHING
from gsb_tvm.runtime.cuda.driver import CopyNode, CudaDevice, Device, LaunchNode
from gsb_tvm.targets.gpus import capability
from tests.gpu.folder import LIMITS, contents
from tests.gpu.rows import Row
from tests.gpu.stages import Check

_PACKAGES = ("torch", "triton", "cuda-bindings", "cupy-cuda13x", "numpy", "msgspec", "onnxruntime")
_PROGRAMS = ("nvidia-smi", "compute-sanitizer", "ncu", "cuobjdump", "nvcc")
_QUERY = (
    "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,temperature.gpu,power.draw,"
    "power.limit,persistence_mode,mig.mode.current"
)


def units(_folder: Path) -> list[str]:
    """What is looked at."""
    return ["machine", "packages", "device", "graph"]


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """Nothing yet: the first units are for machines where the others fail."""
    return lambda unit: {
        "machine": _machine,
        "packages": _packages,
        "device": lambda: _device(folder),
        "graph": lambda: graph(CudaDevice(0), (folder / LIMITS).read_bytes()),
    }[unit]()


def _machine() -> Iterator[Row]:
    found = {name: shutil.which(name) or "missing" for name in _PROGRAMS}
    yield Row("programs", "figure", ", ".join(f"{k} {v}" for k, v in found.items()))
    yield Row("GPU", "figure", gpu_state())


def gpu_state() -> str:
    """What nvidia-smi says of name, driver, clocks, temperature and power."""
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi is missing"
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def _packages() -> Iterator[Row]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    yield Row("packages", "figure", ", ".join(f"{name} {which}" for name, which in found.items()))


def _device(folder: Path) -> Iterator[Row]:
    made, here = capability(contents(folder).arch), CudaDevice(0).capability()
    fits = made[0] == here[0] and made[1] <= here[1]
    text = f"code for {made[0]}.{made[1]} on a GPU of {here[0]}.{here[1]}"
    yield Row("device", "ok" if fits else "failed", text)


def graph(device: Device, cubin: bytes) -> Iterator[Row]:
    """A launch and a copy as a graph, then another copy in its place."""
    first, second = np.arange(256, dtype=np.uint8), np.full(256, 7, np.uint8)
    pointers = [device.allocate(256) for _ in range(3)]
    device.upload(pointers[0], first, 0)
    device.upload(pointers[1], second, 0)
    function = device.function(device.load(cubin), NOTHING)
    nodes = [
        LaunchNode(function, (2, 1, 1), (32, 1, 1), (pointers[0],)),
        CopyNode(pointers[2], pointers[0], 256),
    ]
    made = device.graph(nodes)
    got = np.empty(256, np.uint8)
    for source, wanted in ((0, first), (1, second)):
        device.change(made, 1, CopyNode(pointers[2], pointers[source], 256))
        device.run_graph(made, 0)
        device.download(got, pointers[2], 0)
        if not np.array_equal(got, wanted):
            yield Row("graph", "failed", f"copy {source} is not what was copied")
            return
    yield Row("graph", "ok")
