"""Times of kernels inside the whole network, where their constants come from farther away."""

from pathlib import Path

import numpy as np

import gsb_tvm
from gsb_tvm.dialect.phases import SPEC
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.profiling import sample
from gsb_tvm.targets import Profile

_WARM_UP = 3


class Network:
    """A compiled network whose steps are timed."""

    def __init__(self, model: Path, profile: Profile, folder: Path) -> None:
        artefact = folder / "network.so"
        lowered = compile_model(model, profile, Options(artefact, verify=False)).module
        specs = {
            name.name_hint: str(func.attrs[SPEC])
            for name, func in lowered.functions.items()
            if func.attrs and SPEC in func.attrs
        }
        self._module = gsb_tvm.load(artefact)
        self._specs = [specs.get(step.kernel, "") for step in self._module.metadata.program.steps]
        rng = np.random.default_rng(1)
        shape = self._module.metadata.program.inputs[0].shape
        self._images = rng.standard_normal(shape, dtype=np.float32)
        self._passes: list[np.ndarray] = []

    def run(self, passes: int) -> None:
        """Time so many passes."""
        for _ in range(_WARM_UP):
            self._module.run([self._images])
        samples = sample(self._module, [self._images], seconds=0.0, runs=passes)
        self._passes += list(samples.steps)

    def call_seconds(self) -> dict[str, float]:
        """Seconds of a call, by the kernel's spec as text: medians over passes, means over calls.

        The float kernels, which have none, stand under the empty text.
        """
        medians = np.median(self._passes, axis=0)
        return {
            text: float(medians[[each == text for each in self._specs]].mean())
            for text in dict.fromkeys(self._specs)
        }

    def whole_seconds(self) -> float:
        """Seconds of all steps: the median over passes."""
        return float(np.median(np.sum(self._passes, axis=1)))
