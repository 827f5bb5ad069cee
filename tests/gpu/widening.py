"""More images than are worth computing by hand: a few, again and again, in any order."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.specs import Patches
from gsb_tvm.tuning.samples import Array, Sample


def times(spec: Any, count: int) -> Any:
    """The spec for ``count`` times as many images."""
    if isinstance(spec, Rows | Patches):
        return replace(spec, batch=spec.batch * count)
    if not is_dataclass(spec):
        return spec
    parts = {field.name: times(getattr(spec, field.name), count) for field in fields(spec)}
    return replace(spec, **parts)


def widened(sample: Sample, drawn: Any, spec: Any) -> Sample:
    """A sample of ``drawn`` as one of ``spec``, which differs in the number of images alone.

    What depends on the largest value of all images is the same for them and their copies.
    """
    inputs = [
        _repeated(array, before, behind)
        for array, before, behind in zip(sample.inputs, drawn.inputs(), spec.inputs(), strict=True)
    ]
    pairs = list(zip(drawn.outputs(), spec.outputs(), strict=True))
    outputs = [_repeated(a, *pair) for a, pair in zip(sample.outputs, pairs, strict=True)]
    decided = [
        None if bits is None else _repeated(bits, *pair)
        for bits, pair in zip(sample.decided, pairs, strict=True)
    ]
    return replace(sample, inputs=inputs, outputs=outputs, decided=decided)


def _repeated(array: Array, drawn: Any, wide: Any) -> Array:
    """The array of a tensor of ``drawn``, as ``wide`` has it: images first as drawn, then any."""
    (_, before, _), (_, behind, _) = drawn, wide
    for axis, (small, large) in enumerate(zip(before, behind, strict=True)):
        if small != large:
            array = np.take(array, order(large, small), axis)
    return np.ascontiguousarray(array)


def order(count: int, drawn: int) -> Array:
    """Which of those drawn each of ``count`` is: all of them, then any."""
    more = np.random.default_rng(count).integers(0, drawn, count - drawn)
    return np.concatenate([np.arange(drawn), more])
