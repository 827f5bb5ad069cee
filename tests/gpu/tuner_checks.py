"""What a tuner does with candidates: kernels between its guards, and whether its clock goes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from gsb_tvm.runtime.cuda.driver import CudaDevice
from gsb_tvm.runtime.cuda.kernel_file import GpuKernel, encode
from gsb_tvm.tuning.gpu_machine import GpuMachine
from gsb_tvm.tuning.gpus import chip_of
from gsb_tvm.tuning.samples import disagreement
from tests.gpu.drawing import samples, samples_of
from tests.gpu.folder import Case, contents, cubin
from tests.gpu.rows import Row
from tests.gpu.stages import Check

_MOST = 4  # kernels: all of them are checked elsewhere
_CALLS = 100  # in a graph


def units(folder: Path) -> list[str]:
    """A few small kernels."""
    return [case.name for case in contents(folder).cases if case.is_small][:_MOST]


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """The GPU."""
    cases = {case.name: case for case in contents(folder).cases}
    device = CudaDevice(0)
    return lambda name: _checked(folder, cases[name], device)


def _checked(folder: Path, case: Case, device: CudaDevice) -> Iterator[Row]:
    machine = GpuMachine(device)
    kernel = GpuKernel(
        arch=contents(folder).arch,
        code=cubin(folder, case).read_bytes(),
        launches=case.launches,
        scratch_bytes=case.scratch_bytes,
        state_bytes=case.state_bytes,
    )
    function = machine.loaded(encode(kernel))
    drawn = samples_of(folder, case, samples)[0]
    garbage = [out + 1 if out.dtype.kind == "f" else ~out for out in drawn.outputs]
    tensors = [machine.tensor(array) for array in (*drawn.inputs, *garbage)]
    times = [machine.seconds(function, [tensors], calls) for calls in (1, _CALLS)]
    function(*tensors)
    outputs = [machine.numpy(tensor) for tensor in tensors[len(drawn.inputs) :]]
    found = disagreement(drawn, outputs)
    if min(times) <= 0:
        found = f"a call takes {times} s"
    yield Row(case.name, "failed" if found else "ok", found or f"on {chip_of(device).text}")
