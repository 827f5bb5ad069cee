"""Seconds on a GPU, by events of the driver."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from gsb_tvm.runtime.cuda.api import Driver
from gsb_tvm.runtime.cuda.driver import Device, Stream


class Clock:
    """Times what goes to a stream; makes the GPU the calling thread's."""

    def __init__(self, device: Device, stream: Stream = 0) -> None:
        driver = Driver()
        self._cuda, self._do, self.stream = driver.api, driver.do, stream
        gpu = self._do(self._cuda.cuDeviceGet(device.ordinal))
        self._do(self._cuda.cuCtxSetCurrent(self._do(self._cuda.cuDevicePrimaryCtxRetain(gpu))))
        self._start, self._end = (self._do(self._cuda.cuEventCreate(0)) for _ in range(2))

    def seconds(self, run: Callable[[], object], times: int = 1) -> float:
        """Seconds of one run, of ``times`` in a row."""
        self._do(self._cuda.cuEventRecord(self._start, self.stream))
        for _ in range(times):
            run()
        self._do(self._cuda.cuEventRecord(self._end, self.stream))
        self._do(self._cuda.cuEventSynchronize(self._end))
        return float(self._do(self._cuda.cuEventElapsedTime(self._start, self._end))) / 1e3 / times

    def mark(self) -> Any:
        """A point of the stream."""
        event = self._do(self._cuda.cuEventCreate(0))
        self._do(self._cuda.cuEventRecord(event, self.stream))
        return event

    def between(self, marks: Sequence[Any]) -> list[float]:
        """Seconds from each mark to the next, once all have been passed; marks end here."""
        found = [self._do(self._cuda.cuEventElapsedTime(*p)) / 1e3 for p in pairwise(marks)]
        for mark in marks:
            self._do(self._cuda.cuEventDestroy(mark))
        return found

    def calibrated(self, run: Callable[[], object], seconds: float, most: int = 10_000) -> int:
        """How many runs take about so long; it has been run by then."""
        run()
        once = max(self.seconds(run), 1e-7)
        return max(1, min(most, round(seconds / once)))
