"""Workloads whose candidates the stand-in for NVIDIA's driver can run, in whatever process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gsb_tvm.runtime.cuda.launches import lower
from gsb_tvm.runtime.cuda.nvrtc import compile_source
from gsb_tvm.runtime.kernel_library import NAME
from gsb_tvm.schedules.choices import Choice, Value
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.samples import Sample
from gsb_tvm.tuning.workloads import Workload
from tests.libcuda.emulations import emulate


@dataclass(frozen=True)
class Known:
    """A workload, its first ``choices``, and in ``kernels`` what the machine code of each does."""

    workload: Workload
    kernels: Path
    choices: int

    @property
    def kernel(self) -> str:
        return self.workload.kernel

    def version(self, profile: Profile) -> int:
        return self.workload.version(profile)

    def space(self, profile: Profile) -> tuple[dict[str, Value], ...]:
        return self.workload.space(profile)[: self.choices]

    def function(self, profile: Profile, choice: Choice) -> Any:
        """PrimFunc of a choice, whose machine code the stand-in knows from here on."""
        assert profile.gpu is not None
        func = self.workload.function(profile, choice)
        source = lower({NAME: func}, profile).source
        emulate(source, compile_source(source, profile.gpu.arch), self.kernels)
        return func

    def sample(
        self, profile: Profile, choice: Choice, rng: np.random.Generator, *, zeros: bool
    ) -> Sample:
        return self.workload.sample(profile, choice, rng, zeros=zeros)
