"""ONNX operators on NumPy arrays: what folding needs to compute constants.

Element types follow the arrays: float32 arrays give float32 steps, float64 arrays float64 steps.
Attributes are those of opset 17 to 22; an operator whose axes moved from an attribute to an input
takes either.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from scipy.special import erf

from gsb_tvm.frontend.graph import Array

Attrs = dict[str, Any]
Rule = Callable[[list[Array | None], Attrs], list[Array]]

REDUCTIONS = frozenset(
    {
        "ReduceMean",
        "ReduceSum",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
    }
)


def axes_of(inputs: list[Array | None], attrs: Attrs, index: int = 1) -> list[int] | None:
    """Return the axes given as an attribute (older opsets) or as an input, or None."""
    if len(inputs) > index and (axes := inputs[index]) is not None:
        return [int(axis) for axis in axes.reshape(-1)]
    return [int(axis) for axis in attrs["axes"]] if "axes" in attrs else None


def evaluate(op: str, inputs: list[Array | None], attrs: Attrs) -> list[Array] | None:
    """Compute a node, or return None for an operator that is not in the table."""
    rule = _RULES.get(op)
    if rule is None:
        return None
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in rule(inputs, attrs)]


def _given(array: Array | None) -> Array:
    if array is None:
        raise ValueError("a required input is absent")
    return array


def _elementwise(function: Callable[..., Any]) -> Rule:
    def rule(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
        arrays = [_given(array) for array in inputs]
        return [np.asarray(function(*arrays))]

    return rule


def _typed(function: Callable[..., Any]) -> Rule:
    """Wrap a function whose result has the element type of its first input."""

    def rule(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
        arrays = [_given(array) for array in inputs]
        return [np.asarray(function(*arrays)).astype(arrays[0].dtype, copy=False)]

    return rule


def _divide(a: Array, b: Array) -> Array:
    """Divide; integers towards zero, as ONNX does."""
    if not np.issubdtype(a.dtype, np.integer):
        return np.asarray(a / b)
    if np.any(b == 0):
        raise ValueError("division of an integer by zero")
    quotient = np.abs(a) // np.abs(b)
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient))


def _power(a: Array, b: Array) -> Array:
    if b.size == 1 and float(b.reshape(-1)[0]) == 2.0:
        return a * a
    return np.power(a, b)


def _reduce(function: Callable[..., Any]) -> Rule:
    def rule(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
        x = _given(inputs[0])
        axes = axes_of(inputs, attrs)
        if not axes:
            if attrs.get("noop_with_empty_axes", 0):
                return [x]
            axes = list(range(x.ndim))
        out = function(x, axis=tuple(axes), keepdims=attrs.get("keepdims", 1) == 1)
        return [np.asarray(out).astype(x.dtype, copy=False)]

    return rule


def _l2(x: Array, **how: Any) -> Array:
    return np.asarray(np.sqrt(np.sum(x * x, **how)))


def _cast(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [_given(inputs[0]).astype(onnx.helper.tensor_dtype_to_np_dtype(attrs["to"]))]


def _cast_like(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [_given(inputs[0]).astype(_given(inputs[1]).dtype)]


def _clip(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x = _given(inputs[0])
    low, high = ((inputs[i] if len(inputs) > i else None) for i in (1, 2))
    if low is not None:
        x = np.maximum(x, low)
    if high is not None:
        x = np.minimum(x, high)
    return [x]


def _reshape(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x = _given(inputs[0])
    shape = [int(n) for n in _given(inputs[1])]
    if not attrs.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return [x.reshape(shape)]


def _transpose(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [np.transpose(_given(inputs[0]), attrs.get("perm"))]


def _squeeze(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    axes = axes_of(inputs, attrs)
    return [np.squeeze(_given(inputs[0]), None if axes is None else tuple(axes))]


def _unsqueeze(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [np.expand_dims(_given(inputs[0]), tuple(axes_of(inputs, attrs) or ()))]


def _flatten(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x = _given(inputs[0])
    axis = attrs.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return [x.reshape(rows, x.size // rows if rows else 0)]


def _expand(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x = _given(inputs[0])
    shape = np.broadcast_shapes(x.shape, tuple(int(n) for n in _given(inputs[1])))
    return [np.broadcast_to(x, shape)]


def _tile(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [np.tile(_given(inputs[0]), [int(n) for n in _given(inputs[1])])]


def _concat(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [np.concatenate([_given(array) for array in inputs], axis=attrs["axis"])]


def slice_spec(
    shape: tuple[int, ...], inputs: list[Array | None]
) -> list[tuple[int, int, int, int]]:
    """Return (axis, begin, end, step) of a Slice with every bound inside the axis.

    A negative step that runs down to element 0 has ``end`` −1.
    """
    starts = [int(v) for v in _given(inputs[1])]
    ends = [int(v) for v in _given(inputs[2])]
    axes_in = inputs[3] if len(inputs) > 3 else None
    steps_in = inputs[4] if len(inputs) > 4 else None
    axes = list(range(len(starts))) if axes_in is None else [int(v) for v in axes_in]
    steps = [1] * len(starts) if steps_in is None else [int(v) for v in steps_in]
    spec = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        begin, stop, step = slice(start, end, step).indices(size)
        spec.append((axis % len(shape), begin, stop, step))
    return spec


def _slice(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x = _given(inputs[0])
    index: list[slice] = [slice(None)] * x.ndim
    for axis, begin, end, step in slice_spec(x.shape, inputs):
        index[axis] = slice(begin, None if step < 0 and end < 0 else end, step)
    return [x[tuple(index)]]


def _gather(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [np.take(_given(inputs[0]), _given(inputs[1]), axis=attrs.get("axis", 0))]


def split_sizes(size: int, outputs: int, inputs: list[Array | None], attrs: Attrs) -> list[int]:
    """Return the length of each output of a Split along its axis."""
    if len(inputs) > 1 and inputs[1] is not None:
        return [int(n) for n in inputs[1]]
    if "split" in attrs:
        return [int(n) for n in attrs["split"]]
    chunk = -(-size // outputs)
    return [min(chunk, size - i * chunk) for i in range(outputs)]


def _split(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x, axis = _given(inputs[0]), attrs.get("axis", 0)
    sizes = split_sizes(x.shape[axis], attrs["num_outputs"], inputs, attrs)
    return list(np.split(x, np.cumsum(sizes)[:-1], axis=axis))


def _constant_of_shape(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    value = np.asarray(attrs.get("value", np.zeros(1, np.float32))).reshape(())
    return [np.full([int(n) for n in _given(inputs[0])], value, value.dtype)]


def _range(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    start, limit, step = (_given(array).reshape(()).item() for array in inputs)
    if step == 0 or (limit - start) / step > 2**24:
        raise ValueError("a range of this size is not plausible")
    return [np.arange(start, limit, step, dtype=_given(inputs[0]).dtype)]


def _softmax(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    x, axis = _given(inputs[0]), attrs.get("axis", -1)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return [e / e.sum(axis=axis, keepdims=True)]


def _identity(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    return [_given(inputs[0])]


def _trilu(inputs: list[Array | None], attrs: Attrs) -> list[Array]:
    k = 0 if len(inputs) < 2 or inputs[1] is None else int(inputs[1])
    return [(np.triu if attrs.get("upper", 1) else np.tril)(_given(inputs[0]), k)]


_RULES: dict[str, Rule] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _typed(np.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Cos": _typed(np.cos),
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Erf": _typed(erf),
    "Exp": _typed(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _typed(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": _identity,
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Log": _typed(np.log),
    "MatMul": _elementwise(np.matmul),
    "Max": _elementwise(lambda *a: np.asarray(np.maximum.reduce(np.broadcast_arrays(*a)))),
    "Min": _elementwise(lambda *a: np.asarray(np.minimum.reduce(np.broadcast_arrays(*a)))),
    "Mod": _elementwise(np.mod),
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pow": _typed(_power),
    "Range": _range,
    "Reciprocal": _typed(np.reciprocal),
    "ReduceL1": _reduce(lambda x, **how: np.sum(np.abs(x), **how)),
    "ReduceL2": _reduce(_l2),
    "ReduceMax": _reduce(np.max),
    "ReduceMean": _reduce(np.mean),
    "ReduceMin": _reduce(np.min),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceSumSquare": _reduce(lambda x, **how: np.sum(x * x, **how)),
    "Relu": _typed(lambda x: np.maximum(x, 0)),
    "Reshape": _reshape,
    "Round": _typed(np.rint),
    "Sigmoid": _typed(lambda x: 1 / (1 + np.exp(-x))),
    "Sign": _typed(np.sign),
    "Sin": _typed(np.sin),
    "Slice": _slice,
    "Softmax": _softmax,
    "Split": _split,
    "Sqrt": _typed(np.sqrt),
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Tanh": _typed(np.tanh),
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise(np.where),
    "Xor": _elementwise(np.logical_xor),
}
