"""How much there is to do in each step of an artefact, from what it says about itself."""

from dataclasses import dataclass
from typing import Any

import msgspec

from gsb_tvm.dialect import work as spec_work
from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.dialect.specs import decode
from gsb_tvm.dialect.work import Bound
from gsb_tvm.runtime.metadata import Layer, Program, Step

_BY_TILES = "dense_tiles"  # how a kernel multiplies stands in its name and nowhere else

Limit = tuple[Bound, int]
"""What bounds a step and, where it reads, how many floats."""


@dataclass(frozen=True)
class Work:
    """What a step has to do; None where nothing says it: of float operators that are no products.

    Attributes
    ----------
    kind
        The packed operator, "linear", "conv2d" and so on for a float product, or "float".
    shape
        For people; of a float operator without products, the kernel's name.
    floats
        Elements of the largest float tensor, for what only looks at each; else 0.
    bytes
        Of all tensors read and written.
    """

    kind: str
    shape: str
    macs: int | None = None
    floats: int = 0
    bytes: int | None = None
    bound: Bound | None = None

    @property
    def limit(self) -> Limit | None:
        """What the step is held against; floats come from the cache that so many fit."""
        if self.bound is None:
            return None
        return self.bound, self.floats if self.bound is Bound.READING else 0

    @property
    def amount(self) -> float:
        """What counts for its limit: multiply-accumulates, or bytes read."""
        return 4.0 * self.floats if self.macs is None else float(self.macs)


def work_of(program: Program, name: str) -> list[Work]:
    """Work of each step of a program of the artefact called ``name``.

    Raises
    ------
    ArtefactError
        It does not list its steps, or has a kernel of a kind not known here.
    """
    if not program.steps:
        raise ArtefactError(f"{name}: does not say what its steps are. Compile the model again.")
    products = {row.name: row for row in program.layers if row.form == "float"}
    last = {step.layer: i for i, step in enumerate(program.steps)}
    found = []
    for i, step in enumerate(program.steps):
        text = program.kernels.get(step.kernel, "")
        # Of several steps of a float layer the last one multiplies: before it, weights unfold.
        row = products.get(step.layer) if last[step.layer] == i else None
        found.append(_packed(text, step, name) if text else _float(row, step.kernel))
    return found


def _packed(text: str, step: Step, name: str) -> Work:
    try:
        spec: Any = decode(text)
    except (KeyError, ValueError, msgspec.MsgspecError) as err:
        raise ArtefactError(
            f'{name}: kernel "{step.kernel}" is of a kind not known here. Compile the model again.'
        ) from err
    return packed_work(spec, step.kind)


def packed_work(spec: Any, kind: str) -> Work:
    """Work of a packed operator whose kernel is of ``kind``, as "dense_words"."""
    bound, size = spec_work.bound(spec), spec_work.bytes_touched(spec)
    shape = spec_work.shape_text(spec)
    if kind == _BY_TILES:
        bound = Bound.TILES
    if bound is Bound.READING:
        return Work(kind, shape, None, spec_work.floats(spec), size, bound)
    return Work(kind, shape, spec_work.macs(spec), 0, size, bound)


def _float(row: Layer | None, kernel: str) -> Work:
    if row is None:
        return Work("float", kernel)
    shape = " x ".join(map(str, row.shape))
    return Work(row.operator, shape, row.macs, bound=Bound.MULTIPLYING)
