"""What the launches of a call take, by the GPU's clock."""

from collections.abc import Sequence

from gsb_tvm.runtime.cuda.launching import Resident
from gsb_tvm.runtime.metadata import Launch

# So many of one kind are timed together, beside which what the clock adds is little.
_REPEATED = 16


def units(launches: Sequence[Launch]) -> list[range]:
    """Numbers of launches that do whole steps together, cut as finely as they can be."""
    last = {step: number for number, launch in enumerate(launches) for step in launch.steps}
    found, first, end = [], 0, 0
    for number, launch in enumerate(launches):
        end = max(end, *(last[step] for step in launch.steps))
        if number == end:
            found.append(range(first, number + 1))
            first = end = number + 1
    return found


class LaunchTimer:
    """Times a call whose tensors are on the GPU, as a whole and by units of its launches.

    Units are repeated in the order of the call. Since whole steps leave what they read as it is,
    and state as they find it, each finds in memory what it finds in a call; of the caches, it finds
    what it left there itself.
    """

    def __init__(self, call: Resident, parts: Sequence[range]) -> None:
        device = call.device
        self._device, self._stream = device, call.stream
        self._whole = device.graph(call.nodes)
        launches = call.launches
        self._parts = [
            device.graph([launches[number] for number in part] * _REPEATED) for part in parts
        ]

    def whole(self) -> float:
        """Seconds of a call."""
        return self._device.seconds(self._whole, self._stream)

    def parts(self) -> list[float]:
        """Seconds of each unit."""
        return [self._device.seconds(part, self._stream) / _REPEATED for part in self._parts]
