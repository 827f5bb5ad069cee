"""Kernels to tune: each knows its space, makes its candidates and the samples they are checked on.

A workload travels to other processes as plain data.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import tvm
from tvm import tirx
from tvm.ir import Call, load_json, save_json
from tvm_ffi import structural_walk

from gsb_tvm.dialect.specs import decode
from gsb_tvm.schedules import families
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.schedules.choices import Choice, Value
from gsb_tvm.schedules.records import Key, key_of
from gsb_tvm.targets import Profile, resolve
from gsb_tvm.tuning.samples import Sample, sample

_TOLERANCE = 2e-5  # of float kernels, whose sums and functions differ in their last digits
_EDGES = 1e-4  # share of numbers that those may turn where there is something to turn them
_COMPARISONS = (tirx.LT, tirx.LE, tirx.GT, tirx.GE, tirx.EQ, tirx.NE)
_ROUNDING = {"floor", "ceil", "round", "nearbyint", "trunc"}


class Workload(Protocol):
    """A kernel to tune."""

    @property
    def kernel(self) -> str:
        """What it computes, as records hold it."""

    def version(self, profile: Profile) -> int:
        """Of its family's schedules."""

    def space(self, profile: Profile) -> tuple[dict[str, Value], ...]:
        """Choices worth trying, the rule's first."""

    def function(self, profile: Profile, choice: Choice) -> Any:
        """PrimFunc of a choice: inputs, then outputs."""

    def sample(
        self, profile: Profile, choice: Choice, rng: np.random.Generator, *, zeros: bool
    ) -> Sample:
        """Random inputs in the layout of a choice, and what must come out."""


def key(workload: Workload, profile: Profile) -> Key:
    """What its records have in common."""
    return key_of(workload.kernel, workload.version(profile), profile)


@dataclass(frozen=True)
class Packed:
    """A packed operator; ``kernel`` is its spec as text, in the layout of the rule's choice."""

    kernel: str

    def version(self, profile: Profile) -> int:
        """Of its family's schedules."""
        return families.version(self._spec, profile)

    def space(self, profile: Profile) -> tuple[dict[str, Value], ...]:
        """Choices worth trying, the rule's first."""
        return families.space(self._spec, profile)

    def function(self, profile: Profile, choice: Choice) -> Any:
        """PrimFunc of a choice."""
        return families.kernel(self._spec, profile, choice)

    def sample(
        self, profile: Profile, choice: Choice, rng: np.random.Generator, *, zeros: bool
    ) -> Sample:
        """Random inputs in the layout of a choice, and what the oracle makes of them."""
        return sample(families.arranged(self._spec, profile, choice), rng, zeros=zeros)

    @property
    def _spec(self) -> Any:
        return _decoded(self.kernel)


@dataclass(frozen=True)
class Float:
    """A float operator; ``source`` is its unscheduled PrimFunc as TVM saves it."""

    kernel: str
    source: str

    @classmethod
    def of(cls, func: Any) -> "Float":
        """Of an unscheduled PrimFunc that a rule knows."""
        return cls(float_kernels.key(func), save_json(func))

    def version(self, profile: Profile) -> int:
        """Of the float schedules."""
        return float_kernels.version(profile)

    def space(self, profile: Profile) -> tuple[dict[str, Value], ...]:
        """Choices worth trying, the rule's first."""
        return float_kernels.space(load_json(self.source), profile)

    def function(self, profile: Profile, choice: Choice) -> Any:
        """PrimFunc of a choice."""
        return float_kernels.schedule(load_json(self.source), profile, choice)

    def sample(
        self, _profile: Profile, _choice: Choice, rng: np.random.Generator, *, zeros: bool
    ) -> Sample:
        """Random inputs, and what the unscheduled PrimFunc makes of them; ``zeros`` is ignored."""
        func = load_json(self.source)
        inputs, outputs = float_kernels.signature(func)
        module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
        main = tvm.compile(module, target=resolve("native").tvm_target())["main"]
        for least in (-16, 1):  # above 0 where something is divided, or is no number otherwise
            arrays = [_numbers(rng, shape, dtype, least) for _, shape, dtype in inputs]
            results = [np.zeros(shape, dtype) for _, shape, dtype in outputs]
            tensors = [tvm.runtime.tensor(array) for array in (*arrays, *results)]
            main(*tensors)
            wanted = [tensor.numpy() for tensor in tensors[len(arrays) :]]
            if all(np.isfinite(array).all() for array in wanted):
                break
        edges = _EDGES if _has_edges(func) else 0.0
        return Sample(arrays, wanted, [None] * len(wanted), _TOLERANCE, edges)


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str, least: int) -> Any:
    """Eighths, whose sums of products are exact; whole numbers that may be indices are 0."""
    if dtype in ("int8", "uint8"):
        return rng.integers(0 if dtype[0] == "u" else -8, 8, shape).astype(dtype)
    if dtype.startswith("float"):
        return (rng.integers(least, 17, shape) / 8).astype(dtype)
    return np.zeros(shape, dtype)


def _has_edges(func: Any) -> bool:
    """Whether a PrimFunc compares floats or makes whole numbers of them."""
    found: list[bool] = []
    structural_walk(
        func.body,
        [
            (_COMPARISONS, lambda node: found.append(_is_float(node.a))),
            (tirx.Cast, lambda node: found.append(_is_float(node.value) and not _is_float(node))),
            (Call, lambda node: found.append(_last_word(node) in _ROUNDING)),
        ],
    )
    return any(found)


def _last_word(call: Any) -> str:
    return str(getattr(call.op, "name", "")).rpartition(".")[2]


def _is_float(expr: Any) -> bool:
    return str(expr.ty.dtype).startswith("float")


@cache
def _decoded(text: str) -> Any:
    return decode(text)
