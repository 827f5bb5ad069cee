"""Small kernels under a tool that sees every access: nothing is written that need not be."""

from collections.abc import Sequence
from pathlib import Path

from gsb_tvm.runtime.cuda.driver import CudaDevice, Pointer
from tests.gpu.drawing import samples
from tests.gpu.folder import contents
from tests.gpu.kernel_checks import checking
from tests.gpu.stages import Check


class Unset(CudaDevice):
    """A GPU whose memory is as it comes, so that the tool sees what was never written."""

    def allocate(self, size: int) -> Pointer:
        """Memory that holds anything."""
        with self._here() as api:
            return int(self._do(api.cuMemAlloc(max(size, 1))))


def units(folder: Path) -> list[str]:
    """Small kernels."""
    return [case.name for case in contents(folder).cases if case.is_small]


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """The GPU; samples are drawn here, for processes would be watched too."""
    cases = {case.name: case for case in contents(folder).cases}
    return checking(folder, cases, Unset(0), samples, watched=True)
