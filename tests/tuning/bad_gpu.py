"""A kernel for GPUs whose candidates are bad, each in its own way."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.cuda.grid import launch, prim_func, scratch, shared, state, synchronize
from gsb_tvm.schedules.vector import bind
from gsb_tvm.tuning.samples import Sample

SIZE = 256
TENSORS = [("x", (SIZE,), "int32"), ("y", (SIZE,), "int32")]

BAD = {
    "wrong": "wrong result",
    "fickle": "wrong result",
    "overruns": "outside its tensors",
    "underruns": "outside its tensors",
    "goes far": "CUDA_ERROR_ILLEGAL_ADDRESS",
    "spoils input": "changed its input",
    "keeps count": "left something in its state",
    "unknown function": 'identifier "no_such_function" is undefined',
    "much shared": "too much shared data",
    "many threads": "CUDA_ERROR",
}
"""Kind -> part of what must be said about it; one more is "endless"."""


@dataclass(frozen=True)
class BadOnGpu:
    """``y = x + 1``, by the rule's choice and by those that are only called bad."""

    kinds: tuple[str, ...] = ()
    kernel: str = "Test {}"

    def version(self, _profile: Any) -> int:
        return 1

    def space(self, _profile: Any) -> tuple[dict[str, Any], ...]:
        return tuple({"kind": kind} for kind in ("rule", *self.kinds))

    def function(self, _profile: Any, choice: Any) -> Any:
        kind = choice["kind"]

        def body(t: dict[str, Any]) -> None:
            count, calls = state("count", 1), scratch("calls", (1,), "int32")
            threads = 2048 if kind == "many threads" else 128
            with launch((SIZE // 128,), threads) as place:
                at = bind(place.block[0] * 128 + place.thread % 128)
                T.buffer_store(t["y"], t["x"][at] + 1, [at])
                with T.If(at == 0), T.Then():
                    T.buffer_store(count, T.int32(0), [0])
                _misbehave(kind, t["x"], t["y"], at, count, calls)

        return prim_func(TENSORS, body)

    def sample(
        self, _profile: Any, _choice: Any, rng: np.random.Generator, *, zeros: bool
    ) -> Sample:
        x = rng.integers(0, 100, SIZE, dtype=np.int32)
        return Sample([x], [x + 1], [None])


def _misbehave(kind: str, x: Any, y: Any, at: Any, count: Any, calls: Any) -> None:
    match kind:
        case "endless":
            with T.While(x[at] >= 0):
                T.buffer_store(y, y[at] + 1, [at])
        case "wrong":
            with T.If(at == 7), T.Then():
                T.buffer_store(y, y[7] + 1, [7])
        case "fickle":  # right at first: scratch stays from call to call, whatever it begins with
            with T.If(at == 0), T.Then():
                T.buffer_store(calls, T.Select(calls[0] < 100, calls[0] + 1, T.int32(0)), [0])
                T.buffer_store(y, y[0] + T.Select(calls[0] > 5, 1, 0), [0])
        case "overruns":
            with T.If(at == 0), T.Then():
                T.buffer_store(y, T.int32(1), [SIZE + 1])
        case "underruns":
            with T.If(at == 0), T.Then():
                T.buffer_store(y, T.int32(1), [T.int32(-1)])
        case "goes far":
            with T.If(at == 0), T.Then():
                T.buffer_store(y, T.int32(1), [1 << 28])
        case "spoils input":
            with T.If(at == SIZE - 1), T.Then():
                T.buffer_store(x, T.int32(-1), [SIZE - 1])
        case "keeps count":
            with T.If(at == 0), T.Then():
                T.buffer_store(count, T.int32(1), [0])
        case "unknown function":
            T.evaluate(tirx.call_extern("int32", "no_such_function", 0))
        case "much shared":
            room = shared((1 << 14,), "int32")
            T.buffer_store(room, at, [at])
            synchronize()
            T.buffer_store(y, y[at] + room[at] - at, [at])
