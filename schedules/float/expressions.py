"""Expressions of stages at other coordinates: substitution, inlining, vector functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import tirx
from tvm.ir import Call, Op, TensorLoad
from tvm.script.ir_builder import tirx as T

from gsb_tvm.schedules.float import functions
from gsb_tvm.schedules.float.stages import Stage
from gsb_tvm.schedules.vector import Buffer, Expr, rounded

Loader = Callable[[list[Expr]], Expr]


@dataclass
class Scope:
    """Where expressions of stages are evaluated.

    ``sources`` says how the load of a tensor of the original function is read here.
    """

    sources: dict[Any, Loader | Stage] = field(default_factory=dict)

    def bind_buffer(self, old: Buffer, new: Buffer) -> None:
        """Loads of ``old`` read ``new`` at the same indices."""
        self.sources[old] = lambda indices: new[tuple(indices)]

    def bind_rows(self, old: Buffer, new: Buffer, rows: int) -> None:
        """Loads of ``old`` read ``new``, flat, which has not the first ``rows`` axes."""
        shape = [int(n) for n in old.shape[rows:]]
        self.sources[old] = lambda indices: new[flat(shape, indices[rows:])]

    def bind_value(self, old: Buffer, value: Expr) -> None:
        """Loads of ``old`` are ``value``: the one element that matters here."""
        self.sources[old] = lambda _: value

    def inline(self, stage: Stage) -> None:
        """Loads of the stage's tensor evaluate its expression."""
        self.sources[stage.buffer] = stage

    def value(self, stage: Stage, at: Sequence[Expr], reduce: Sequence[Expr] = ()) -> Expr:
        """The stage's expression at coordinates ``at``, and ``reduce`` of its reduced axes."""
        axes = (*stage.axes, *stage.reduce)
        env = {axis.var: i for axis, i in zip(axes, (*at, *reduce), strict=True)}
        return self.evaluate(stage.value, env)

    def evaluate(self, expr: Expr, env: dict[Any, Expr]) -> Expr:
        """``expr`` with variables replaced by ``env`` and loads by their sources.

        A product that meets a sum is rounded first, as it was when each stood in a kernel of its
        own; functions of the scalar library become arithmetic.
        """
        if isinstance(expr, tirx.Var):
            return env.get(expr, expr)
        if isinstance(expr, TensorLoad):
            indices = [self.evaluate(i, env) for i in expr.indices]
            source = self.sources[expr.source]
            return self.value(source, indices) if isinstance(source, Stage) else source(indices)
        if isinstance(expr, tirx.IntImm | tirx.FloatImm):
            return expr
        if isinstance(expr, tirx.Cast):
            return T.Cast(expr.ty.dtype, self.evaluate(expr.value, env))
        if isinstance(expr, tirx.Select):
            parts = (expr.condition, expr.true_value, expr.false_value)
            return T.Select(*[self.evaluate(part, env) for part in parts])
        if isinstance(expr, Call):
            return self._call(expr, [self.evaluate(arg, env) for arg in expr.args])
        if isinstance(expr, tirx.Not):
            return tirx.Not(self.evaluate(expr.a, env))
        a, b = _widened(self.evaluate(expr.a, env), self.evaluate(expr.b, env))
        if isinstance(expr, tirx.Add | tirx.Sub):
            a, b = _settled(a), _settled(b)
        return type(expr)(a, b)

    def _call(self, expr: Any, args: list[Expr]) -> Expr:
        name = expr.op.name.rpartition(".")[2] if isinstance(expr.op, Op) else ""
        if name in functions.BY_NAME and expr.ty.dtype == "float32":
            return functions.BY_NAME[name](args[0])
        return Call(expr.op, args, expr.attrs, ret_ty=expr.ty)


def index(value: int) -> Expr:
    """A constant index."""
    return tirx.const(value, "int64")


def flat(shape: Sequence[int], at: Sequence[Expr]) -> Expr:
    """Row-major position of coordinates ``at``."""
    total = index(0)
    for extent, i in zip(shape, at, strict=True):
        total = total * index(extent) + i
    return total


def _widened(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Loops count in int64; where the original counted in int32, its constants follow."""
    if (a.ty.dtype, b.ty.dtype) == ("int64", "int32"):
        return a, T.Cast("int64", b)
    if (a.ty.dtype, b.ty.dtype) == ("int32", "int64"):
        return T.Cast("int64", a), b
    return a, b


def _settled(expr: Expr) -> Expr:
    is_product = isinstance(expr, tirx.Mul) and expr.ty.dtype.startswith("float")
    return rounded(expr) if is_product else expr
