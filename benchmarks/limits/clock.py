"""The frequency of the core, from a chain of multiplications of known latency."""

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import local, prim_func, put
from gsb_tvm.targets import Profile

_STEPS, _LENGTH = 512, 16
# 64-bit imul, register to register: 3 on Intel since Nehalem and on AMD since Zen. Source: A. Fog,
# Instruction tables, and uops.info.
_LATENCY_CYCLES = {"x86_64": 3}


def cycles(profile: Profile) -> float | None:
    """Cycles that :func:`chain` takes; None where the latency is not known."""
    latency = _LATENCY_CYCLES.get(profile.arch)
    return None if latency is None else float(latency * _STEPS * _LENGTH)


def chain() -> tirx.PrimFunc:
    """PrimFunc that squares a uint64 again and again; every square waits for the one before."""

    def body(start: tirx.Buffer, end: tirx.Buffer) -> None:
        value = local((1,), "uint64")
        put(value, start[0], 0)
        with T.serial(0, _STEPS):
            for _ in range(_LENGTH):
                put(value, value[0] * value[0], 0)
        put(end, value[0], 0)

    return prim_func([("start", (1,), "uint64"), ("end", (1,), "uint64")], body)


def arrays() -> tuple[np.ndarray, np.ndarray]:
    """Arguments of :func:`chain`."""
    return np.array([3], np.uint64), np.empty(1, np.uint64)
