"""Kernels for CUDA in tests: emulated against the oracle, and compiled."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gsb_tvm.runtime.cuda.launches import Kernels, lower
from gsb_tvm.runtime.cuda.nvrtc import DeviceCode, compile_source
from gsb_tvm.targets import resolve
from gsb_tvm.tuning.samples import disagreement, of_inputs, sample
from tests.schedules.cuda.emulator import WAYS, Array, Emulated, Way, outputs

TENSOR_ARCHS = ("sm_80", "sm_86", "sm_87", "sm_89", "sm_90")
"""Those that multiply bits on tensor cores."""

ARCHS = ("sm_75", *TENSOR_ARCHS, "sm_100", "sm_120")


def lowered(func: Any) -> Kernels:
    """Source of one kernel, named "kernel"."""
    return lower({"kernel": func}, resolve("cuda -arch=sm_90"))


def check(spec: Any, func: Any, seed: int = 0) -> None:
    """The kernel agrees with the oracle in every order of threads, with zeros and without."""
    kernels = lowered(func)
    emulated = Emulated(kernels.source)
    for zeros in (False, True):
        drawn = sample(spec, np.random.default_rng(seed), zeros=zeros)
        for way in WAYS:
            got = outputs(kernels, "kernel", emulated, drawn.inputs, drawn.outputs, way)
            wrong = disagreement(drawn, got)
            assert not wrong, f"{spec}, {way}, zeros {zeros}: {wrong}"


def check_inputs(
    spec: Any, func: Any, draws: Iterable[Sequence[Array]], ways: Sequence[Way] = WAYS
) -> None:
    """The kernel agrees with the oracle on inputs given, whose floats are exact in any order."""
    kernels = lowered(func)
    emulated = Emulated(kernels.source)
    for number, inputs in enumerate(draws):
        drawn = of_inputs(spec, inputs)
        for way in ways:
            got = outputs(kernels, "kernel", emulated, drawn.inputs, drawn.outputs, way)
            wrong = disagreement(drawn, got)
            assert not wrong, f"{spec}, {way}, draw {number}: {wrong}"


def compiled(func: Any) -> DeviceCode:
    """Machine code of one kernel for sm_90; nothing of it spills registers."""
    code = compile_source(lowered(func).source, "sm_90")
    assert code.resources
    for name, taken in code.resources.items():
        assert taken.spilled_bytes == 0, f"{name} spills: {taken}"
    return code
