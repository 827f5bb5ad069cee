"""A convolution whose windows do not overlap, and the tokens made of it, as one operator."""

from dataclasses import replace

import numpy as np
from tvm.ir.transform import Pass

from gsb_tvm.dialect import ops
from gsb_tvm.dialect.ops import dtype_of, is_call, shape_of, spec_of
from gsb_tvm.dialect.specs import Patches
from gsb_tvm.passes.rewriting import (
    Array,
    Expr,
    Graph,
    constant,
    literal,
    operand_pair,
    rewrite_pass,
)
from gsb_tvm.passes.store_lattices import lattice

_TO_TOKENS = [0, 2, 1]


def FusePatches() -> Pass:
    """Let a patch embedding write tokens: no transposition, no concatenation.

    Before  c = conv2d(image, w; strides = window, no padding);  c = add(c, bias)
            t = permute_dims(reshape(c, (batch, columns, patches)), (0, 2, 1))
    After   t = gsb.patches(image, w, bias)
    and     add(concat((rows, t), 1), position)
    after   gsb.patches(image, w, bias, position, rows + position)
    Requires   constants w, bias, rows and position, the last two equal for all images
    Leaves alone   padding, dilation, groups, overlapping windows, a single column; tokens that
                   others read too
    Exact   the order of steps is kept; the sum over a window may be taken in another
    Source   docs/architecture.md, Packed operators and kernels
    """
    return rewrite_pass("FusePatches", lambda: lambda _var, value, g: _fuse(value, g))


def _fuse(value: Expr, graph: Graph) -> Expr | None:
    if is_call(value, "relax.permute_dims"):
        return _tokens(value, graph)
    if is_call(value, "relax.concat"):
        return _prefixed(value, graph)
    return _positioned(value, graph) if is_call(value, "relax.add") else None


def _tokens(value: Expr, graph: Graph) -> Expr | None:
    """The projection itself, with its bias."""
    axes = value.attrs.axes
    flat = graph.call(value.args[0], "relax.reshape")
    if axes is None or [int(axis) for axis in axes] != _TO_TOKENS or flat is None:
        return None
    source, bias = flat.args[0], None
    if graph.call(source, "relax.add") is not None:
        pair = operand_pair(graph.producer(source))
        if pair is None or shape_of(pair[0]) != shape_of(source):
            return None
        source, bias = pair[0], _per_channel(pair[1], shape_of(source)[1])
        if bias is None:
            return None
    call = graph.call(source, "relax.nn.conv2d")
    weight = constant(call.args[1]) if call is not None else None
    if weight is None or not _cuts_patches(call, weight.shape):
        return None
    batch, channels, height, width = shape_of(call.args[0])
    columns = weight.shape[0]
    if columns < 2 or shape_of(value) != (batch, shape_of(value)[1], columns):
        return None
    stored = _stored(weight)
    spec = Patches(
        batch,
        channels,
        (height, width),
        weight.shape[2:],
        columns,
        len(stored) > 1,
        bias is not None,
    )
    args = [call.args[0], *stored, *([] if bias is None else [literal(bias)])]
    return graph.emit(ops.packed(spec, args), source.name)


def _stored(weight: Array) -> list[Expr]:
    """Weight (depth, columns), float32 or levels and a scale for each column."""
    columns = weight.shape[0]
    by_depth = np.ascontiguousarray(weight.reshape(columns, -1).T)
    found = lattice(by_depth)
    if found is None:
        return [literal(by_depth)]
    levels, scale = found
    if scale.size not in (1, columns):
        return [literal(by_depth)]
    return [literal(levels), literal(np.broadcast_to(scale.reshape(-1), (columns,)))]


def _cuts_patches(call: Expr, weight: tuple[int, ...]) -> bool:
    attrs = call.attrs
    plain = all(int(n) == 0 for n in attrs.padding) and all(int(n) == 1 for n in attrs.dilation)
    layouts = str(attrs.data_layout), str(attrs.kernel_layout)
    return (
        plain
        and int(attrs.groups) == 1
        and layouts == ("NCHW", "OIHW")
        and tuple(int(n) for n in attrs.strides) == tuple(weight[2:])
        and dtype_of(call) == dtype_of(call.args[0]) == "float32"
    )


def _per_channel(array: Array, channels: int) -> Array | None:
    """Vector of a constant that broadcasts along the channels of (batch, channels, y, x)."""
    shape = (1,) * (4 - array.ndim) + array.shape
    fits = shape[1] in (1, channels) and shape[0] == shape[2] == shape[3] == 1
    return np.broadcast_to(array.reshape(-1), (channels,)) if fits else None


def _prefixed(value: Expr, graph: Graph) -> Expr | None:
    """Constant tokens before those of the image."""
    *before, last = value.args[0].fields
    call = graph.call(last, "gsb.patches")
    arrays = [array for part in before if (array := constant(part)) is not None]
    if call is None or not before or len(arrays) < len(before):
        return None
    spec: Patches = spec_of(call)
    if int(value.attrs.axis) % 3 != 1 or spec.prefix or not graph.is_single_use(last):
        return None
    rows: Array = np.concatenate(arrays, axis=1)
    if (rows != rows[:1]).any():
        return None
    prefixed = replace(spec, prefix=rows.shape[1])
    return graph.emit(ops.packed(prefixed, [*call.args, literal(rows[0])]), last.name)


def _positioned(value: Expr, graph: Graph) -> Expr | None:
    """A constant for each token, added last; for constant tokens it is added here."""
    pair = operand_pair(value)
    call = graph.call(pair[0], "gsb.patches") if pair is not None else None
    if pair is None or call is None or not graph.is_single_use(pair[0]):
        return None
    spec: Patches = spec_of(call)
    shape = shape_of(value)
    full = np.broadcast_to(pair[1], shape) if shape_of(pair[0]) == shape else None
    if spec.position or full is None or (full != full[:1]).any():
        return None
    args = [*call.args, literal(full[0, spec.prefix :])]
    if spec.prefix:
        rows = constant(call.args[-1])
        assert rows is not None
        args[-2:] = [args[-1], literal(rows + full[0, : spec.prefix])]
    return graph.emit(ops.packed(replace(spec, position=True), args), pair[0].name)
