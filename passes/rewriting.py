"""How every graph pass is written: rebuild one dataflow block, binding by binding.

Compiled models are one function, one dataflow block, in A-normal form. A pass looks at one value
at a time, with what produced its operands, and either keeps it or emits something else.

A variable's name says which of the model's operators it computes, or helps to: profiles show it
(:mod:`gsb_tvm.passes.keep_names`). Several variables may have one name; no pass may match by it.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.ir import GenericConst, IRModule
from tvm.ir.transform import Pass, PassContext
from tvm.relax.transform import function_pass

from gsb_tvm.dialect.ops import is_call

Expr = Any
Array = npt.NDArray[Any]


class Graph:
    """The block under construction, and what produced each of its variables."""

    def __init__(self, builder: relax.BlockBuilder, uses: Counter[Any]) -> None:
        self._builder = builder
        self._producers: dict[Any, Expr] = {}
        self._uses = uses
        self._origin: dict[Any, Any] = {}
        self._visited = ""

    def visiting(self, name: str) -> None:
        """Name what is emitted from here on after the binding that it replaces."""
        self._visited = name

    def emit(self, value: Expr, name: str = "") -> Expr:
        """Variable bound to ``value``; variables and constants stand for themselves.

        Without a ``name`` it is named after the binding under visit.
        """
        if isinstance(value, relax.Var | GenericConst):
            return value
        # BlockBuilder.emit would append numbers until the name is unique.
        value = self._builder.normalize(value)
        var = relax.DataflowVar(name or self._visited, value.ty)
        self._builder.emit_normalized(relax.VarBinding(var, value))
        self._producers[var] = value
        return var

    def add_kernel(self, func: Any, name: str) -> Any:
        """Global variable of a PrimFunc that joins the module."""
        return self._builder.add_func(func, name)

    def producer(self, expr: Expr) -> Any:
        """What ``expr`` is bound to; None for parameters and constants."""
        return self._producers.get(expr)

    def call(self, expr: Expr, *names: str) -> Any:
        """The call that produced ``expr`` if it is one of the operators ``names``."""
        value = self.producer(expr)
        return value if any(is_call(value, name) for name in names) else None

    def is_single_use(self, expr: Expr) -> bool:
        """Whether the function before this pass read ``expr`` exactly once."""
        return self._uses[self._origin.get(expr, expr)] == 1

    def renamed(self, old: Any, new: Expr) -> None:
        """Remember that ``new`` stands for ``old``, whose uses were counted."""
        self._origin.setdefault(new, old)


Visit = Callable[[relax.Var, Expr, Graph], Expr | None]


def rewrite_pass(name: str, make_visit: Callable[[], Visit]) -> Pass:
    """Function pass ``gsb.<name>`` that runs a fresh visit over every function.

    ``visit(var, value, graph)`` sees each binding with operands already rewritten and returns a
    replacement, or None to keep the value.
    """

    def run(func: relax.Function, _mod: IRModule, _ctx: PassContext) -> relax.Function:
        return rewrite(func, make_visit())

    return function_pass(run, opt_level=0, name=f"gsb.{name}")


def rewrite(func: relax.Function, visit: Visit) -> relax.Function:
    """Rebuild ``func`` with ``visit``; the same object when nothing was replaced."""
    module = rewrite_module(func, visit)
    return func if module is None else module["main"]


def rewrite_module(func: relax.Function, visit: Visit) -> IRModule | None:
    """``func`` rebuilt as "main", with the kernels that ``visit`` added; None when unchanged."""
    builder = relax.BlockBuilder()
    substitution: dict[Any, Expr] = {}
    graph = Graph(builder, _count_uses(func))
    changed = False
    with builder.function("main", list(func.params)):
        with builder.dataflow():
            for block in func.body.blocks:
                for binding in block.bindings:
                    value = _substitute(binding.value, substitution)
                    graph.visiting(binding.var.name)
                    new = visit(binding.var, value, graph)
                    changed = changed or new is not None
                    bound = graph.emit(value if new is None else new)
                    substitution[binding.var] = bound
                    graph.renamed(binding.var, bound)
            result = _emit_output(_substitute(func.body.body, substitution), builder)
        builder.emit_func_output(result)
    if not changed:
        return None
    module = builder.get()
    if func.attrs:
        module["main"] = module["main"].with_attrs(func.attrs)
    return module


def _emit_output(result: Expr, builder: relax.BlockBuilder) -> relax.Var:
    """The block's result, under the name of the variable that it is."""
    if not isinstance(result, relax.DataflowVar):
        return builder.emit_output(result)
    output = relax.Var(result.name, result.ty)
    builder.emit_normalized(relax.VarBinding(output, result))
    return output


def _count_uses(func: relax.Function) -> Counter[Any]:
    uses: Counter[Any] = Counter()

    def count(expr: Expr) -> None:
        if isinstance(expr, relax.Var):
            uses[expr] += 1
        for child in _children(expr):
            count(child)

    for block in func.body.blocks:
        for binding in block.bindings:
            count(binding.value)
    count(func.body.body)
    return uses


def _children(expr: Expr) -> Sequence[Expr]:
    if isinstance(expr, relax.Call):
        return list(expr.args)
    if isinstance(expr, relax.Tuple):
        return list(expr.fields)
    if isinstance(expr, relax.TupleGetItem):
        return [expr.tuple_value]
    return []


def _substitute(expr: Expr, substitution: dict[Any, Expr]) -> Expr:
    if isinstance(expr, relax.Var):
        return substitution.get(expr, expr)
    if isinstance(expr, relax.Call):
        args = [_substitute(arg, substitution) for arg in expr.args]
        return relax.Call(expr.op, args, expr.attrs, expr.ty_args, ret_ty=expr.ty)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([_substitute(field, substitution) for field in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        return relax.TupleGetItem(_substitute(expr.tuple_value, substitution), expr.index)
    return expr


def constant(expr: Expr) -> Array | None:
    """Payload of a constant, or None."""
    return expr.value.numpy() if isinstance(expr, GenericConst) else None


def payload(expr: Expr) -> Array:
    """Payload of what is known to be a constant."""
    array = constant(expr)
    assert array is not None
    return array


def literal(array: npt.ArrayLike, dtype: str | None = None) -> Expr:
    """Relax constant."""
    values = np.array(array, dtype=dtype, order="C")
    return relax.const(tvm.runtime.tensor(values))


def scalar(expr: Expr) -> float | None:
    """Value of a constant with one element, or None."""
    array = constant(expr)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def operand_pair(call: Expr) -> tuple[Expr, Array] | None:
    """Live operand and constant of a commutative call with exactly one constant operand."""
    for live, other in (call.args, reversed(call.args)):
        array = constant(other)
        if array is not None and constant(live) is None:
            return live, array
    return None
