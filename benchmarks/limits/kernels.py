"""The distinct kernels of a network, with arguments like those they get there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from tvm import relax, tirx

from gsb_tvm.dialect.ops import is_packed, spec_of
from gsb_tvm.dialect.phases import SPEC
from gsb_tvm.dialect.specs import (
    AttentionPlanes,
    AttentionValue,
    BatchMatmul,
    Dense,
    Operand,
    encode,
)
from gsb_tvm.frontend.importer import load
from gsb_tvm.passes import pipeline
from gsb_tvm.passes.report import Row, layer_rows
from gsb_tvm.schedules.families import kernel
from gsb_tvm.targets import Profile
from limits.arguments import for_float, for_spec


class Bound(StrEnum):
    """What limits a kernel at best."""

    COUNTING = "counting"
    MULTIPLYING = "multiplying"
    READING = "reading"


@dataclass(frozen=True)
class Kernel:
    """A PrimFunc that a network calls.

    Attributes
    ----------
    calls
        How often in one pass.
    macs
        Multiply-accumulates of a call as in the layer table: 0 where it has none. For attention
        times values, those of one plane on each side.
    floats
        Elements of its largest float argument.
    """

    name: str
    shape: str
    calls: int
    func: tirx.PrimFunc
    arrays: tuple[np.ndarray, ...]
    macs: int
    floats: int
    bound: Bound

    @property
    def bytes(self) -> int:
        """Of all arguments."""
        return sum(array.nbytes for array in self.arrays)


def kernels(model: Path, profile: Profile) -> list[Kernel]:
    """Kernels of a model: the packed ones in the order of their first call, then float products."""
    module = load(model).module
    for each in pipeline.recognition_passes():
        module = each(module)
    rows = layer_rows(module)
    for each in pipeline.packing_passes(profile):
        module = each(module)
    found = _packed(module, profile)
    for each in pipeline.lowering_passes(profile):
        module = each(module)
    return [*found, *_float_products(module, [row for row in rows if row.form == "float"])]


def _values(module: Any) -> Iterator[Any]:
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            yield binding.value


def _packed(module: Any, profile: Profile) -> list[Kernel]:
    rng = np.random.default_rng(0)
    found: dict[str, Kernel] = {}
    for call in filter(is_packed, _values(module)):
        spec = spec_of(call)
        text = encode(spec)
        if text in found:
            found[text] = replace(found[text], calls=found[text].calls + 1)
            continue
        found[text] = Kernel(
            name=call.op.name.removeprefix("gsb."),
            shape=shape_of(spec),
            calls=1,
            func=kernel(spec, profile),
            arrays=tuple(for_spec(spec, call.args, rng)),
            macs=macs_of(spec),
            floats=_floats(spec),
            bound=Bound.COUNTING if macs_of(spec) else Bound.READING,
        )
    return list(found.values())


def macs_of(spec: Any) -> int:
    """Multiply-accumulates of one plane on each side."""
    if isinstance(spec, Dense):
        return spec.rows.batch * spec.rows.tokens * spec.rows.features * spec.columns
    if isinstance(spec, AttentionPlanes):
        return spec.q.batch * spec.q.tokens**2 * spec.q.features
    if isinstance(spec, AttentionValue):
        return spec.v.batch * spec.v.tokens**2 * spec.v.features
    if isinstance(spec, BatchMatmul):
        return spec.a.batch * spec.a.tokens * spec.b.tokens * spec.a.features
    return 0


def shape_of(spec: Any) -> str:
    """Shape for people, batch left out where it is 1, and what else tells specs apart."""
    if isinstance(spec, BatchMatmul):
        sizes, ending = (spec.a.batch, spec.a.tokens, spec.a.features, spec.b.tokens), ""
    elif isinstance(spec, Dense):
        sizes = (spec.rows.batch, spec.rows.tokens, spec.rows.features, spec.columns)
        has_residual = any(step.operand is Operand.TENSOR for step in spec.steps)
        ending = " to bits" if spec.thresholds else " + residual" if has_residual else " to floats"
    elif isinstance(spec, AttentionPlanes | AttentionValue):
        is_score = isinstance(spec, AttentionPlanes)
        rows = spec.q if is_score else spec.v
        sizes = (rows.batch, rows.groups, rows.tokens, rows.width)
        ending = f" spread {spec.spread}" if is_score else ""
    else:
        sizes, ending = (spec.rows.batch, spec.rows.tokens, spec.rows.features), ""
    return " x ".join(map(str, sizes[1:] if sizes[0] == 1 else sizes)) + ending


def _floats(spec: Any) -> int:
    tensors = [*spec.inputs(), *spec.outputs()]
    sizes = [int(np.prod(shape)) for _, shape, dtype in tensors if dtype == "float32"]
    return max(sizes, default=0)


def _float_products(module: Any, rows: Sequence[Row]) -> list[Kernel]:
    """Kernels of the rows that stayed float, which the module calls in the same order."""
    calls = [call for call in _values(module) if _is_float_product(call, module)]
    found = []
    for call, row in zip(calls, rows, strict=True):
        func = module[call.args[0]].with_attr("global_symbol", "main")
        arrays = tuple(for_float(func))
        floats = max(array.size for array in arrays if array.dtype == np.float32)
        shape = " x ".join(map(str, row.shape))
        found.append(
            Kernel(row.operator, shape, 1, func, arrays, row.macs, floats, Bound.MULTIPLYING)
        )
    return found


def _is_float_product(value: Any, module: Any) -> bool:
    """Relax names a fused function after its operators; nothing else tells what it computes."""
    if not (isinstance(value, relax.Call) and getattr(value.op, "name", "") == "relax.call_tir"):
        return False
    name = value.args[0].name_hint
    is_product = "matmul" in name or "conv2d" in name
    return is_product and SPEC not in (module[value.args[0]].attrs or {})
