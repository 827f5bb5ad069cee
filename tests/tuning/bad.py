"""A kernel whose candidates are bad, each in its own way."""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.vector import prim_func
from gsb_tvm.tuning.samples import Sample

SIZE = 256
TENSORS = [("x", (SIZE,), "int32"), ("y", (SIZE,), "int32")]

KINDS = {
    "endless": "no end within",
    "segfault": "SIGSEGV",
    "illegal": "SIGILL",
    "abort": "SIGABRT",
    "quits": "ended without a result",
    "wrong": "wrong result",
    "fickle": "wrong result",
    "overruns": "outside its tensors",
    "spoils input": "changed its input",
    "hog": "",
    "build raises": "no such schedule",
    "build crashes": "SIGABRT",
    "build endless": "no end within",
    "build hog": "memory",
}
"""Kind -> part of what must be said about it."""


@dataclass(frozen=True)
class Bad:
    """``y = x + 1``, by the rule's choice and by those that are only called bad."""

    kinds: tuple[str, ...]
    first: str = "rule"
    kernel: str = "Test {}"

    def version(self, _profile: Any) -> int:
        return 1

    def space(self, _profile: Any) -> tuple[dict[str, Any], ...]:
        return ({"kind": self.first}, *({"kind": kind} for kind in self.kinds))

    def function(self, _profile: Any, choice: Any) -> Any:
        kind = choice["kind"]
        if kind.startswith("build"):
            _misbuild(kind)

        def body(x: Any, y: Any) -> None:
            with T.serial(SIZE) as i:
                T.buffer_store(y, x[i] + 1, [i])
            _misbehave(kind, x, y)

        return prim_func(TENSORS, body)

    def sample(
        self, _profile: Any, _choice: Any, rng: np.random.Generator, *, zeros: bool
    ) -> Sample:
        x = rng.integers(0, 100, SIZE, dtype=np.int32)
        return Sample([x], [x + 1], [None])


def _misbuild(kind: str) -> None:
    if kind == "build raises":
        raise ValueError("no such schedule")
    if kind == "build crashes":
        os.abort()
    if kind == "build endless":
        while True:
            time.sleep(1)
    hoard = []
    while True:
        hoard.append(np.ones(1 << 25, np.uint8))


def _call(name: str, *arguments: Any) -> None:
    T.evaluate(tirx.call_extern("int32", name, *arguments))


def _misbehave(kind: str, x: Any, y: Any) -> None:
    match kind:
        case "endless":
            with T.While(x[0] >= 0):
                T.buffer_store(y, y[1] + 1, [1])
        case "segfault":
            _call("memset", tirx.reinterpret("handle", tirx.const(8, "uint64")), 1, 64)
        case "illegal":
            T.evaluate(tirx.call_llvm_intrin("void", "llvm.trap"))
        case "abort":
            _call("abort")
        case "quits":
            _call("_exit", 0)
        case "wrong":
            T.buffer_store(y, y[7] + 1, [7])
        case "fickle":  # right at first
            T.buffer_store(y, y[3] + T.Select(_calls() > 5, 1, 0), [3])
        case "overruns":
            T.buffer_store(y, T.int32(1), [SIZE + 1])
        case "spoils input":
            T.buffer_store(x, T.int32(-1), [SIZE - 1])
        case "hog":
            with T.serial(1 << 20):
                _call("memset", tirx.call_extern("handle", "malloc", 1 << 24), 1, 1 << 24)


def _calls() -> Any:
    """How often the kernel was called in this process, which keeps the number in its umask."""
    before = T.Bind(tirx.call_extern("int32", "umask", 0))
    _call("umask", tirx.min(before + 1, 0o777))  # it has nine bits, and must not begin anew
    return before - 0o22
