"""What became of each matmul-like operator of a model: packed, or float and why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from tvm import relax
from tvm.ir import IRModule

from gsb_tvm.dialect.bits import WORD_BITS, words
from gsb_tvm.dialect.ops import is_call, shape_of
from gsb_tvm.passes.rewriting import Array, Expr, constant
from gsb_tvm.passes.superposition import binary_weight
from gsb_tvm.passes.views import VIEWS

Producers = dict[Any, Expr]

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
_SCALINGS = ("relax.multiply", "relax.divide")
_SUMS = ("relax.add", "relax.subtract")
_PLANES = ("gsb.sign", "gsb.mask", "relax.sign")
_COMPARISONS = ("relax.greater", "relax.greater_equal", "relax.less", "relax.less_equal")
_MOST_LEVELS = 256  # what 8 bits can tell apart; beyond it a weight counts as float


@dataclass(frozen=True)
class Row:
    """One operator.

    Attributes
    ----------
    name
        The ONNX node's name, as far as an identifier can hold it.
    operator
        "linear" (constant weight), "product" (two live tensors), "conv1d", "conv2d", "conv3d".
    shape
        (rows, contracted, columns), for a product (batch, rows, contracted, columns); a
        convolution counts as the matrix product it equals, one row for each output position.
    reason
        What is multiplied in a packed operator; why the operator is float otherwise.
    macs
        Multiply-accumulates, planes not counted: the product of ``shape``.
    bytes
        Of the constants: weight bits and scales of a packed operator, float weights otherwise.
    is_binary
        Whether packing was to be expected: both operands are superposed planes, or the weight has
        two levels.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    form: Literal["packed", "float"]
    reason: str
    macs: int
    bytes: int
    is_binary: bool


def layer_rows(recognised: IRModule) -> list[Row]:
    """Rows of a module after recognition, in the order of execution."""
    producers = dict(_bindings(recognised))
    rows = []
    for var, value in producers.items():
        if is_call(value, "gsb.matmul"):
            rows.append(_packed_row(var, value))
        elif is_call(value, "relax.matmul"):
            rows.append(_float_row(var, value, producers))
        elif any(is_call(value, name) for name in _CONVOLUTIONS):
            rows.append(_convolution_row(var, value))
    return rows


def with_leftovers(rows: Sequence[Row], packed: IRModule) -> list[Row]:
    """Mark as float the rows whose ``gsb.matmul`` is still in the module after packing."""
    out = list(rows)
    for var, value in _bindings(packed):
        if is_call(value, "gsb.matmul"):
            at = _row_of(out, str(var.name), _shape(value, *_operand_shapes(value)))
            if at is not None:
                reason = f"recognised as binary, and {_obstacle(value)}"
                weights = _float_bytes(value.args[2].fields)
                out[at] = replace(out[at], form="float", reason=reason, bytes=weights)
    return out


def _bindings(mod: IRModule) -> Iterator[tuple[Any, Expr]]:
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            yield binding.var, binding.value


def _row_of(rows: Sequence[Row], name: str, shape: tuple[int, ...]) -> int | None:
    """Index of the packed row that a leftover belongs to.

    A fused projection split into parts keeps its rows and contracted axis, not its name.
    """
    open_rows = [i for i, row in enumerate(rows) if row.form == "packed"]
    same_name = [i for i in open_rows if rows[i].name == name]
    same_shape = [i for i in open_rows if rows[i].shape == shape]
    same_part = [i for i in open_rows if rows[i].shape[:-1] == shape[:-1]]
    return next(iter((*same_name, *same_shape, *same_part, *open_rows)), None)


def _operand_shapes(call: Expr) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if is_call(call, "gsb.matmul"):
        return shape_of(call.args[0].fields[0]), shape_of(call.args[2].fields[0])
    return shape_of(call.args[0]), shape_of(call.args[1])


def _shape(call: Expr, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rows, columns = (a[-2] if len(a) > 1 else 1), (b[-1] if len(b) > 1 else 1)
    total = int(np.prod(shape_of(call), dtype=np.int64))
    batch = total // max(rows * columns, 1)
    return (batch * rows, a[-1], columns) if len(b) == 2 else (batch, rows, a[-1], columns)


def _packed_row(var: Any, call: Expr) -> Row:
    planes, _, others, _ = (list(part.fields) for part in call.args)
    is_linear = all(constant(plane) is not None for plane in others)
    shape = _shape(call, *_operand_shapes(call))
    pairs = f"{_count(planes)} x {_count(others)}"
    size = _packed_bytes(others, len(planes)) if is_linear else 0
    operator = "linear" if is_linear else "product"
    return Row(
        str(var.name), operator, shape, "packed", pairs, _product(shape), size, is_binary=True
    )


def _count(planes: Sequence[Expr]) -> str:
    return f"{len(planes)} plane{'s' if len(planes) > 1 else ''}"


def _packed_bytes(weights: Sequence[Expr], activation_planes: int) -> int:
    total = 0
    for weight in weights:
        array = _payload(weight)
        contracted, columns = array.shape
        bit_planes = 1 if (array != 0).all() else 2
        total += bit_planes * words(contracted) * (WORD_BITS // 8) * columns
        total += activation_planes * 4 * columns  # one float32 scale for each pair and column
    return total


def _float_row(var: Any, call: Expr, producers: Producers) -> Row:
    left, right = call.args
    shape = _shape(call, *_operand_shapes(call))
    weight = constant(right)
    operator = "product" if weight is None else "linear"
    if weight is None:
        reason, is_binary = _live_reason(left, right, producers)
    else:
        reason, is_binary = _weight_reason(left, weight, producers)
    size = _float_bytes(call.args)
    return Row(str(var.name), operator, shape, "float", reason, _product(shape), size, is_binary)


def _weight_reason(activation: Expr, weight: Array, producers: Producers) -> tuple[str, bool]:
    if weight.ndim != 2:
        return f"weight has {weight.ndim} axes", False
    if binary_weight(weight) is None:
        return _levels(weight), False
    if _is_affine(activation, producers) is None:
        return "weight is binary, activation is float", True
    return _scale_reason(affine=False), True  # a constant term would have become a bias


def _live_reason(left: Expr, right: Expr, producers: Producers) -> tuple[str, bool]:
    sides = [_is_affine(side, producers) for side in (left, right)]
    if sides == [None, None]:
        return "both operands are float", False
    if None in sides:
        return f"{'left' if sides[0] is None else 'right'} operand is float", False
    return _scale_reason(affine=any(sides)), True


def _scale_reason(*, affine: bool) -> str:
    if affine:
        return "binary, but scales or constant terms have too many values"
    return "binary, but scales change along the contracted axis"


def _is_affine(expr: Expr, producers: Producers) -> bool | None:
    """Whether a superposed tensor has a constant term; None where the tensor is not superposed.

    What did not become part of a product still has its spelling from the model.
    """
    value: Any = producers.get(expr)
    if isinstance(value, relax.TupleGetItem):
        return _is_affine(value.tuple_value, producers)
    name = getattr(getattr(value, "op", None), "name", "")
    if name in _PLANES:
        return False
    if name == "relax.astype":
        return False if _is_comparison(value.args[0], producers) else None
    if name == "relax.where":
        return True if _is_comparison(value.args[0], producers) else None
    if name in VIEWS:
        return _is_affine(value.args[0], producers)
    if name not in (*_SCALINGS, *_SUMS):
        return None
    live = [arg for arg in value.args if constant(arg) is None]
    sides = [_is_affine(arg, producers) for arg in live]
    if not sides or None in sides:
        return None
    return (len(live) == 1 and name in _SUMS) or any(sides)


def _is_comparison(expr: Expr, producers: Producers) -> bool:
    return any(is_call(producers.get(expr), name) for name in _COMPARISONS)


def _convolution_row(var: Any, call: Expr) -> Row:
    weight = call.args[1]
    extents, out = shape_of(weight), shape_of(call)
    operator = call.op.name.removeprefix("relax.nn.")
    columns, contracted = extents[0], int(np.prod(extents[1:], dtype=np.int64))
    positions = int(np.prod(out, dtype=np.int64)) // columns
    shape = (positions, contracted, columns)
    array = constant(weight)
    reason, is_binary = "weight is not constant", False
    if array is not None:
        is_binary = binary_weight(array.reshape(columns, contracted).T) is not None
        reason = "binary convolution has no packed kernel" if is_binary else _levels(array)
    size = _float_bytes([weight])
    return Row(str(var.name), operator, shape, "float", reason, _product(shape), size, is_binary)


def _levels(weight: Array) -> str:
    count = len(np.unique(weight[..., : max(1, 2**20 * weight.shape[-1] // weight.size)]))
    return f"weight has {count} levels" if count <= _MOST_LEVELS else "weight is float"


def _obstacle(call: Expr) -> str:
    """Why no packing pass took a ``gsb.matmul``."""
    planes, scales, others, _ = (list(part.fields) for part in call.args)
    if any(constant(plane) is None for plane in others):
        if shape_of(planes[0])[:-2] != shape_of(others[0])[:-2]:
            return "its operands' leading axes differ"
        return "the scales of an operand's planes have no common factor"
    if any(_payload(scale).size != 1 for scale in scales):
        return "a scale of its left operand is not one number"
    return "no packed form takes its operands"


def _payload(expr: Expr) -> Array:
    array = constant(expr)
    assert array is not None
    return array


def _float_bytes(operands: Sequence[Expr]) -> int:
    arrays = (constant(operand) for operand in operands)
    return sum(array.nbytes for array in arrays if array is not None)


def _product(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
