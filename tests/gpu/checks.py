"""One kernel on a GPU: its outputs, and whether it left alone what is not its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gsb_tvm.runtime.cuda.driver import Device, LaunchNode, Pointer
from gsb_tvm.runtime.metadata import Place
from gsb_tvm.tuning.samples import Array, Sample, disagreement
from tests.gpu.folder import Case

GUARD = 4096  # bytes before and behind a tensor that nobody may write; a multiple of all alignments
_PATTERN, _GARBAGE = 0xC3, 0xB7


class Placed:
    """Bytes on a GPU, between guards."""

    def __init__(self, device: Device, size: int, guard: int) -> None:
        self._device, self.size, self._guard = device, size, guard
        self._base = device.allocate(size + 2 * guard)
        self.pointer: Pointer = self._base + guard

    def write(self, data: Array) -> None:
        """Write all of it, and its guards."""
        around = np.full(self._guard, _PATTERN, np.uint8)
        whole = np.concatenate([around, data.reshape(-1).view(np.uint8), around])
        if whole.nbytes:
            self._device.upload(self._base, whole, 0)

    def read(self) -> Array:
        """All of it as bytes; fails where somebody wrote beside it."""
        whole = np.empty(self.size + 2 * self._guard, np.uint8)
        if whole.nbytes:
            self._device.download(whole, self._base, 0)
        before, behind = whole[: self._guard], whole[self._guard + self.size :]
        if (before != _PATTERN).any() or (behind != _PATTERN).any():
            raise AssertionError("written beside a tensor")
        return whole[self._guard : self._guard + self.size]

    def free(self) -> None:
        """Give it back."""
        self._device.free(self._base)


class Bench:
    """A kernel with its tensors on a GPU.

    Where it is ``watched`` by a tool that sees every access, nothing stands around tensors, and
    what the kernel shall write is not written before: the tool tells what was read too early.
    """

    def __init__(
        self,
        device: Device,
        case: Case,
        functions: Mapping[str, Any],
        sample: Sample,
        *,
        watched: bool = False,
    ) -> None:
        self._device, self._sample, self._watched = device, sample, watched
        guard = 0 if watched else GUARD
        sizes = [array.nbytes for array in (*sample.inputs, *sample.outputs)]
        self._tensors = [Placed(device, size, guard) for size in sizes]
        self._scratch = Placed(device, case.scratch_bytes, guard)
        self._state = Placed(device, case.state_bytes, guard)
        self._state.write(np.zeros(case.state_bytes, np.uint8))
        for tensor, array in zip(self._tensors, sample.inputs, strict=False):
            tensor.write(array)
        self.nodes = [
            LaunchNode(
                functions[launch.function],
                launch.grid,
                launch.block,
                tuple(self._pointer(case, place) for place in launch.arguments),
            )
            for launch in case.launches
        ]

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        for placed in (*self._tensors, self._scratch, self._state):
            placed.free()

    def _pointer(self, case: Case, place: Place) -> Pointer:
        if place.where == "input":
            return self._tensors[place.at].pointer
        if place.at < case.scratch_bytes:
            return self._scratch.pointer + place.at
        return self._state.pointer + place.at - case.scratch_bytes

    def run(self) -> None:
        """All launches, behind garbage where they shall write."""
        if not self._watched:
            self._spoil()
        for node in self.nodes:
            self._device.run(node, 0)
        self._device.synchronize(0)

    def _spoil(self) -> None:
        outputs = zip(self._tensors[len(self._sample.inputs) :], self._sample.outputs, strict=True)
        for tensor, array in outputs:
            tensor.write(np.full(array.nbytes, _GARBAGE, np.uint8))
        self._scratch.write(np.full(self._scratch.size, _GARBAGE, np.uint8))

    def complaint(self) -> str:
        """What is wrong behind a run; "" where nothing is."""
        count = len(self._sample.inputs)
        for number, (tensor, array) in enumerate(
            zip(self._tensors, self._sample.inputs, strict=False)
        ):
            if tensor.read().tobytes() != np.ascontiguousarray(array).tobytes():
                return f"input {number} was changed"
        self._scratch.read()
        if self._state.read().any():
            return "something was left in what must be zero behind a kernel"
        got = [
            tensor.read().view(array.dtype).reshape(array.shape)
            for tensor, array in zip(self._tensors[count:], self._sample.outputs, strict=True)
        ]
        return disagreement(self._sample, got)


def complaint(
    device: Device,
    case: Case,
    functions: Mapping[str, Any],
    samples: Sequence[Sample],
    *,
    runs: int = 1,
    watched: bool = False,
) -> str:
    """What is wrong with a kernel on some samples, each run so often; "" where nothing is."""
    for number, sample in enumerate(samples):
        with Bench(device, case, functions, sample, watched=watched) as bench:
            for again in range(runs):
                bench.run()
                if found := bench.complaint():
                    return f"sample {number}, run {again}: {found}"
    return ""
