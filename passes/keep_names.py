"""Keep the names of values through a fusion pass of TVM's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax
from tvm.ir import GenericConst, GlobalVar, IRModule
from tvm.ir.transform import Pass, PassContext, module_pass
from tvm_ffi import structural_hash

from gsb_tvm.passes.rewriting import Expr, Graph, rewrite

_PRODUCT = 4  # TOpPattern kOutEWiseFusable: matmul, convolution
_PRODUCTS = ("relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")


def KeepNames(fusion: Pass) -> Pass:
    """Run ``fusion``, then name the call of each group after its product, else after its result.

    Before  c = conv2d(x, w); y = add(c, b)
    After   c = fused_conv2d_add(x, w, b)     where TVM calls it lv
    Requires   a pass that moves calls into functions and changes nothing else
    Leaves alone   calls outside a group
    Exact   yes: only names change
    Source   profiles show these names: gsb_tvm/runtime/program.py. Equal groups share a function,
             so that names inside it are those of the first
    """

    def run(mod: IRModule, _ctx: PassContext) -> IRModule:
        values = _Values()
        names: dict[int, str] = {}
        for each in values.of_main(mod):
            names.setdefault(each.number, str(each.var.name))
        out = fusion(mod).clone()
        groups = {each.var: each for each in values.of_main(out) if each.inner}

        def visit(var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
            return graph.emit(value, _name(groups[var], names, out)) if var in groups else None

        out.update_func(out.get_global_var("main"), rewrite(out["main"], visit))
        return out

    return module_pass(run, opt_level=0, name=str(fusion.info.name))


@dataclass(frozen=True)
class _Bound:
    """A binding, the number of its value, and the bindings inside where it calls a group."""

    var: Any
    value: Expr
    number: int
    inner: "tuple[_Bound, ...]" = ()


def _name(group: _Bound, names: Mapping[int, str], mod: IRModule) -> str:
    products = [names[each.number] for each in group.inner
                if each.number in names and _is_product(each.value, mod)]  # fmt: skip
    return products[0] if products else names.get(group.number, "")


def _is_product(value: Expr, mod: IRModule) -> bool:
    if not isinstance(value, relax.Call):
        return False
    if getattr(value.op, "name", "") != "relax.call_tir":
        return getattr(value.op, "name", "") in _PRODUCTS
    return int((mod[value.args[0]].attrs or {}).get("op_pattern", 0)) == _PRODUCT


class _Values:
    """Numbers of values: equal for equal calls on the same inputs and constants.

    A call of a group has the number of what the group returns, so that it makes no difference.
    """

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}

    def of_main(self, mod: IRModule) -> list[_Bound]:
        """Bindings of the main function."""
        main = mod["main"]
        return self._inside(main, [self._of("input", i) for i in range(len(main.params))], mod)[0]

    def _of(self, *key: Any) -> int:
        return self._numbers.setdefault(key, len(self._numbers))

    def _inside(
        self, func: relax.Function, args: Sequence[int], mod: IRModule
    ) -> tuple[list[_Bound], int]:
        known: dict[Any, int] = dict(zip(func.params, args, strict=True))
        bounds = []
        for block in func.body.blocks:
            for binding in block.bindings:
                bound = self._binding(binding.var, binding.value, known, mod)
                known[bound.var] = bound.number
                bounds.append(bound)
        return bounds, self._value(func.body.body, known)

    def _binding(self, var: Any, value: Expr, known: Mapping[Any, int], mod: IRModule) -> _Bound:
        if isinstance(value, relax.Call) and isinstance(value.op, GlobalVar):
            args = [self._value(arg, known) for arg in value.args]
            inner, result = self._inside(mod[value.op], args, mod)
            return _Bound(var, value, result, tuple(inner))
        return _Bound(var, value, self._value(value, known))

    def _value(self, expr: Expr, known: Mapping[Any, int]) -> int:
        if isinstance(expr, relax.Var):
            return known[expr]
        if isinstance(expr, relax.Call):
            args = [self._value(arg, known) for arg in expr.args]
            return self._of("call", expr.op.name, structural_hash(expr.attrs), *args)
        if isinstance(expr, relax.Tuple):
            return self._of("tuple", *(self._value(field, known) for field in expr.fields))
        if isinstance(expr, relax.TupleGetItem):
            return self._of("item", self._value(expr.tuple_value, known), expr.index)
        if isinstance(expr, GlobalVar):
            return self._of("function", expr.name_hint)
        if isinstance(expr, GenericConst):
            return self._of("constant", expr)  # by identity: equal weights may have two names
        return self._of("other", structural_hash(expr))
