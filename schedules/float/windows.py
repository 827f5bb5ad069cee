"""Windows that slide over an image: what a convolution or a pooling reads, found in its stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir import Call
from tvm.sym import detect_linear_equation

from gsb_tvm.schedules.float.stages import Axis, Stage, loads, uses
from gsb_tvm.schedules.vector import Expr

MOST_STRIDE = 4  # beyond, neighbours of a stride lie in more vectors than a shuffle joins well


@dataclass(frozen=True)
class Slide:
    """A window along one axis of an image: it reads ``stride * out + dilation * tap``.

    ``size`` elements stand between ``before`` ones of padding and others behind, ``padded`` in
    all. ``tap`` is None where the window is one element.
    """

    out: Axis
    tap: Axis | None
    stride: int
    dilation: int
    before: int
    size: int
    padded: int

    @property
    def taps(self) -> int:
        """Elements of the window."""
        return 1 if self.tap is None else self.tap.extent

    @property
    def phase_size(self) -> int:
        """Elements of each of the ``stride`` interleaved rows that the padded axis splits into."""
        return -(-self.padded // self.stride)


@dataclass(frozen=True)
class Window:
    """What a reduction reads through windows: images of (H, W) elements of ``source``.

    ``lead`` are the coordinates of an image as the reduction computes them; ``pixel`` is the
    expression of an element over ``variables``, its coordinates within the padding, and ``fill``
    is the padding.
    """

    source: Any
    lead: tuple[Expr, ...]
    y: Slide
    x: Slide
    variables: tuple[Expr, ...]
    pixel: Expr
    fill: float


def find(stage: Stage, before: Sequence[Stage]) -> Window | None:
    """The window of ``stage``, whose last two axes are the image's; None where there is none."""
    if len(stage.axes) < 3 or not stage.reduce:
        return None
    y, x = stage.axes[-2:]
    moving = [found for found in loads(stage.value) if uses(found, y.var) or uses(found, x.var)]
    if len(moving) != 1 or len(moving[0].indices) < 3 or moving[0].ty.dtype != "float32":
        return None
    (load,) = moving
    *lead, at_y, at_x = load.indices
    taps = [axis for axis in stage.reduce if uses(at_y, axis.var) or uses(at_x, axis.var)]
    if any(uses(index, axis.var) for index in lead for axis in (y, x, *taps)):
        return None
    padding = _padding(load, before)
    if padding is None:
        return None
    variables, pixel, fill, borders = padding
    slides = [
        _slide(index, axis, [tap for tap in taps if uses(index, tap.var)], border)
        for index, axis, border in zip((at_y, at_x), (y, x), borders, strict=True)
    ]
    if slides[0] is None or slides[1] is None:
        return None
    return Window(load.source, tuple(lead), slides[0], slides[1], variables, pixel, fill)


def _slide(
    index: Expr, out: Axis, taps: Sequence[Axis], border: tuple[int, int, int]
) -> Slide | None:
    """``index`` as stride * out + dilation * tap."""
    if len(taps) > 1:
        return None
    linear = detect_linear_equation(index, [out.var, *[tap.var for tap in taps]])
    if not linear or not all(isinstance(term, tirx.IntImm) for term in linear):
        return None
    stride, *dilation, offset = [int(term) for term in linear]
    if offset != 0 or not 1 <= stride <= MOST_STRIDE:
        return None
    before, size, padded = border
    spacing = dilation[0] if dilation else 1
    return Slide(out, taps[0] if taps else None, stride, spacing, before, size, padded)


Border = tuple[int, int, int]
Image = tuple[tuple[Expr, ...], Expr, float, list[Border]]


def _padding(load: Any, before: Sequence[Stage]) -> Image | None:
    """Of the image that ``load`` reads: variables, element, padding, and extents of both axes.

    Extents are the padding before, what it surrounds, and both with the padding behind.
    """
    shape = [int(n) for n in load.source.shape]
    stage = next((each for each in before if each.buffer.same_as(load.source)), None)
    if stage is None:
        variables = tuple(tirx.Var(f"i{number}", "int64") for number in range(len(shape)))
        return variables, load.source[variables], 0.0, [(0, n, n) for n in shape[-2:]]
    if stage.reduce:
        return None
    whole = [(0, n, n) for n in shape[-2:]]
    return _surrounded(stage) or (tuple(stage.vars), stage.value, 0.0, whole)


def _surrounded(stage: Stage) -> Image | None:
    """The same of a stage that pads; None where it does not."""
    value = stage.value
    if not isinstance(value, Call) or value.op.name != "prim.if_then_else":
        return None
    inside, pixel, fill = value.args
    limits = {axis.var: [0, axis.extent] for axis in stage.axes}
    if not isinstance(fill, tirx.FloatImm) or not _narrow(inside, limits):
        return None
    if any(limits[axis.var] != [0, axis.extent] for axis in stage.axes[:-2]):
        return None
    borders = []
    for axis in stage.axes[-2:]:
        first, end = limits[axis.var]
        borders.append((first, end - first, axis.extent))
    return tuple(stage.vars), pixel, float(fill.value), borders


def _narrow(condition: Expr, limits: dict[Any, list[int]]) -> bool:
    """Apply a conjunction of bounds on single variables to ``limits``; False where it is more."""
    if isinstance(condition, tirx.And):
        return _narrow(condition.a, limits) and _narrow(condition.b, limits)
    if not isinstance(condition, tirx.LE | tirx.LT):
        return False
    strict = isinstance(condition, tirx.LT)
    low, high = condition.a, condition.b
    if isinstance(low, tirx.IntImm) and high in limits:
        limits[high][0] = max(limits[high][0], int(low) + strict)
        return True
    if isinstance(high, tirx.IntImm) and low in limits:
        limits[low][1] = min(limits[low][1], int(high) + (not strict))
        return True
    return False
