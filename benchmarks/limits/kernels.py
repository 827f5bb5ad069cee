"""The distinct kernels of a network, with arguments like those they get there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tvm import tirx

from gsb_tvm.dialect.ops import is_packed, spec_of
from gsb_tvm.dialect.specs import encode
from gsb_tvm.frontend.importer import load
from gsb_tvm.passes import pipeline
from gsb_tvm.schedules.families import kernel
from gsb_tvm.targets import Profile
from limits.arguments import for_spec


@dataclass(frozen=True)
class Kernel:
    """A PrimFunc that a network calls.

    Attributes
    ----------
    calls
        How often in one pass.
    arrays
        Its arguments, room for outputs last.
    """

    name: str
    spec: Any
    calls: int
    func: tirx.PrimFunc
    arrays: tuple[np.ndarray, ...]

    @property
    def bytes(self) -> int:
        """Of all arguments."""
        return sum(array.nbytes for array in self.arrays)


def kernels(model: Path, profile: Profile) -> list[Kernel]:
    """Kernels of a model's operators with a spec, in the order of their first call."""
    module = load(model).module
    for each in (*pipeline.recognition_passes(), *pipeline.packing_passes(profile)):
        module = each(module)
    rng = np.random.default_rng(0)
    found: dict[str, Kernel] = {}
    for call in filter(is_packed, _values(module)):
        spec = spec_of(call)
        text = encode(spec)
        if text in found:
            found[text] = replace(found[text], calls=found[text].calls + 1)
            continue
        name, arrays = call.op.name.removeprefix("gsb."), tuple(for_spec(spec, call.args, rng))
        found[text] = Kernel(name, spec, 1, kernel(spec, profile), arrays)
    return list(found.values())


def _values(module: Any) -> Iterator[Any]:
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            yield binding.value
