"""Launches that overlap (programmatic dependent launch): what one costs in a graph.

Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch and Synchronization".
"""

import ctypes
from typing import Any

from gsb_tvm.runtime.cuda.api import Driver
from gsb_tvm.runtime.cuda.driver import Pointer, Stream

_WARP = 32


class Recorded:
    """``count`` launches of a function of one pointer, a block of one warp each, as a graph.

    Where they overlap, each may begin once the one before lets it, and not once that has ended. The
    calling thread must be in a GPU's context, as behind :class:`benchmarks.gpu.events.Clock`.
    """

    def __init__(
        self, cubin: bytes, function: str, pointer: Pointer, count: int, *, overlaps: bool
    ) -> None:
        self._driver = Driver()
        api, do = self._driver.api, self._driver.do
        self._module = do(api.cuModuleLoadData(cubin))
        handle = do(api.cuModuleGetFunction(self._module, function.encode()))
        stream = do(api.cuStreamCreate(api.CUstream_flags.CU_STREAM_NON_BLOCKING))
        mode = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        do(api.cuStreamBeginCapture(stream, mode))
        launch = self._launch(stream, overlaps=overlaps)
        parameters = ((pointer,), (ctypes.c_void_p,))
        for _ in range(count):
            do(api.cuLaunchKernelEx(launch, handle, parameters, 0))
        graph = do(api.cuStreamEndCapture(stream))
        self._executable = do(api.cuGraphInstantiate(graph, 0))

    def _launch(self, stream: Any, *, overlaps: bool) -> Any:
        api = self._driver.api
        found = api.CUlaunchConfig()
        found.gridDimX = found.gridDimY = found.gridDimZ = 1
        found.blockDimX, found.blockDimY, found.blockDimZ = _WARP, 1, 1
        found.hStream = stream
        if overlaps:
            attribute = api.CUlaunchAttribute()
            known = api.CUlaunchAttributeID
            attribute.id = known.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
            attribute.value.programmaticStreamSerializationAllowed = 1
            found.attrs, found.numAttrs = [attribute], 1
        return found

    def run(self, stream: Stream) -> None:
        """All of them, behind what the stream does before."""
        self._driver.do(self._driver.api.cuGraphLaunch(self._executable, stream))
