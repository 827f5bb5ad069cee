"""A TVM-generated PrimFunc read as a list of stages, and a PrimFunc written with its arguments.

What LegalizeOps and FuseTIR emit is a sequence of loop nests, each around one sblock that writes
one tensor: ``T[v0, v1, ...] = value`` or ``T[v0, ...] = combine(T[v0, ...], term)`` over further
axes. That is all a :class:`Stage` holds. Kernels are then written out anew from the stages'
expressions, so no loop of the original remains.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import s_tir, tirx
from tvm.ir import Call, Op, TensorLoad
from tvm.script.ir_builder import IRBuilder
from tvm.script.ir_builder import tirx as T
from tvm.sym import detect_linear_equation

from gsb_tvm.schedules.vector import Buffer, Expr, in_root_block

_REDUCE = tirx.IterVar.CommReduce
_COMBINERS: dict[type, str] = {tirx.Add: "add", tirx.Mul: "mul", tirx.Max: "max", tirx.Min: "min"}


@dataclass(frozen=True)
class Axis:
    """A block axis: its variable in the stage's expressions, and how far it runs."""

    var: Expr
    extent: int


@dataclass(frozen=True)
class Stage:
    """One tensor: ``buffer[axes] = value``, or the combination of ``value`` over ``reduce``.

    ``combine`` is "" for a plain stage, else "add", "mul", "max" or "min"; ``identity`` is what the
    combination starts from.
    """

    buffer: Buffer
    axes: tuple[Axis, ...]
    reduce: tuple[Axis, ...]
    value: Expr
    combine: str = ""
    identity: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the tensor."""
        return tuple(axis.extent for axis in self.axes)

    @property
    def size(self) -> int:
        """Evaluations of ``value``."""
        return prod(axis.extent for axis in (*self.axes, *self.reduce))

    @property
    def vars(self) -> list[Expr]:
        """Variables of the tensor's axes."""
        return [axis.var for axis in self.axes]


def read(func: Any) -> list[Stage] | None:
    """Stages of ``func`` in order; None where it is not a sequence of static one-tensor nests."""
    root = func.body
    extents = [extent for param in func.params for extent in getattr(param, "shape", ["none"])]
    if not all(isinstance(extent, tirx.IntImm) for extent in extents):
        return None
    if not isinstance(root, s_tir.SBlockRealize):
        return None
    body = root.block.body
    nests = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    stages = [_stage(nest) for nest in nests]
    return None if None in stages else stages  # type: ignore[return-value]


def _stage(nest: Any) -> Stage | None:
    loops = []
    while isinstance(nest, tirx.For):
        loops.append(nest.loop_var)
        nest = nest.body
    if not isinstance(nest, s_tir.SBlockRealize):
        return None
    block = nest.block
    if not isinstance(block.body, tirx.BufferStore) or not _always(nest.predicate):
        return None
    extents = [iv.dom.extent for iv in block.iter_vars]
    if not all(isinstance(extent, tirx.IntImm) for extent in extents):
        return None
    axes = [Axis(iv.var, int(extent)) for iv, extent in zip(block.iter_vars, extents, strict=True)]
    if not _bound_to(nest.iter_values, loops):
        return None
    kinds = [iv.iter_type == _REDUCE for iv in block.iter_vars]
    reduce = tuple(axis for axis, kind in zip(axes, kinds, strict=True) if kind)
    return _body(block, tuple(a for a in axes if a not in reduce), reduce)


def _body(block: Any, axes: tuple[Axis, ...], reduce: tuple[Axis, ...]) -> Stage | None:
    store = block.body
    if not store.indices:
        axes = ()  # a scalar: its block has one axis, always 0
    if not _indexed_by(store.indices, [axis.var for axis in axes]):
        return None
    if not reduce:
        return Stage(store.buffer, axes, (), store.value) if block.init is None else None
    combine = _COMBINERS.get(type(store.value))
    if combine is None or not isinstance(block.init, tirx.BufferStore):
        return None
    if not isinstance(block.init.value, tirx.FloatImm):
        return None
    own, term = store.value.a, store.value.b
    if not _loads(own, store.buffer):
        own, term = term, own
    if not _loads(own, store.buffer):
        return None
    return Stage(store.buffer, axes, reduce, term, combine, float(block.init.value.value))


def _always(predicate: Expr) -> bool:
    return isinstance(predicate, tirx.IntImm) and int(predicate) == 1


def _bound_to(values: Sequence[Expr], loops: Sequence[Expr]) -> bool:
    """Whether block axes are the loops in order; the block of a scalar has one axis, always 0."""
    if not loops:
        return all(isinstance(value, tirx.IntImm) for value in values)
    return len(values) == len(loops) and all(
        v.same_as(w) for v, w in zip(values, loops, strict=True)
    )


def _loads(expr: Expr, buffer: Buffer) -> bool:
    return isinstance(expr, TensorLoad) and expr.source.same_as(buffer)


def _indexed_by(indices: Sequence[Expr], variables: Sequence[Expr]) -> bool:
    """Whether ``indices`` are exactly ``variables``."""
    return len(indices) == len(variables) and all(
        i.same_as(v) for i, v in zip(indices, variables, strict=True)
    )


def children(expr: Expr) -> list[Expr]:
    """Operands of ``expr``."""
    if isinstance(expr, TensorLoad):
        return list(expr.indices)
    if isinstance(expr, tirx.Select):
        return [expr.condition, expr.true_value, expr.false_value]
    if isinstance(expr, tirx.Cast):
        return [expr.value]
    if isinstance(expr, Call):
        return list(expr.args)
    if isinstance(expr, tirx.Not):
        return [expr.a]
    if isinstance(expr, tirx.Let):
        return [expr.value, expr.body]
    return [expr.a, expr.b] if hasattr(expr, "a") and hasattr(expr, "b") else []


def loads(expr: Expr) -> list[Any]:
    """All loads from tensors in ``expr``, those in indices included."""
    found = [expr] if isinstance(expr, TensorLoad) else []
    for child in children(expr):
        found += loads(child)
    return found


def uses(expr: Expr, var: Expr) -> bool:
    """Whether ``var`` occurs in ``expr``."""
    return expr.same_as(var) or any(uses(child, var) for child in children(expr))


def calls(expr: Expr) -> set[str]:
    """Names of the operators called in ``expr``."""
    names = {expr.op.name} if isinstance(expr, Call) and isinstance(expr.op, Op) else set()
    return names.union(*[calls(child) for child in children(expr)])


def nodes(expr: Expr) -> int:
    """Number of operations, loads and constants in ``expr``, indices not counted."""
    if isinstance(expr, TensorLoad):
        return 1
    return 1 + sum(nodes(child) for child in children(expr))


def divides(expr: Expr) -> bool:
    """Whether ``expr`` holds a division of floats."""
    return isinstance(expr, tirx.Div) or any(divides(child) for child in children(expr))


def rewritten(func: Any, body: Callable[[dict[Any, Buffer]], None]) -> Any:
    """PrimFunc with the arguments and attributes of ``func`` whose body is written by ``body``.

    ``body`` receives the new buffer of every old argument. The result is marked as scheduled.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("main")
            buffers = {
                old: T.arg(old.name, T.buffer([int(n) for n in old.shape], old.dtype))
                for old in func.params
            }
            body(buffers)
    attributes = {key: func.attrs[key] for key in func.attrs.keys()}
    attributes |= {"tirx.is_scheduled": True}
    out = in_root_block(builder.get()).without_attr("global_symbol")
    return out.with_attrs(attributes)


def stride(load: Any, var: Expr) -> int | None:
    """Elements from what ``load`` reads at ``var`` to ``var + 1``; None where that varies."""
    total, step = 0, 1
    for position, extent in zip(reversed(load.indices), reversed(load.source.shape), strict=True):
        if uses(position, var):
            linear = detect_linear_equation(position, [var])
            if len(linear) != 2 or not isinstance(linear[0], tirx.IntImm):
                return None
            total += step * int(linear[0])
        step *= int(extent)
    return total
