"""Replace packed operators by calls of their kernels."""

from typing import Any

from tvm import relax
from tvm.ir import IRModule
from tvm.ir.transform import Pass, PassContext, module_pass

from gsb_tvm.dialect.ops import is_packed, spec_of, tensor_type
from gsb_tvm.dialect.phases import SPEC, TUNED
from gsb_tvm.dialect.specs import encode
from gsb_tvm.passes.rewriting import Expr, Graph, rewrite_module
from gsb_tvm.schedules.choices import text_of
from gsb_tvm.schedules.families import kernel, space, variant, version
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.targets import Profile

OPAQUE = 8  # TOpPattern kOpaque: FuseOps leaves the call as it is


def LowerPacked(profile: Profile, tunings: Tunings | None = None) -> Pass:
    """Replace every packed operator by ``call_tir`` of its family's kernel.

    Its parameters are those of ``tunings``, where they know the kernel, or the rule's.

    Before  y = gsb.dense(a, w, scale; spec)
    After   y = call_tir(dense_words, (a, w, scale))
    Requires   kernels for the target; equal specs share one PrimFunc
    Leaves alone   everything else
    Exact   kernels are tested against the NumPy oracle
    Source   docs/architecture.md, the way of a model
    """

    def run(mod: IRModule, _ctx: PassContext) -> IRModule:
        lowering = _Lowering(profile, tunings or Tunings(profile))
        return rewrite_module(mod["main"], lowering.visit) or mod

    return module_pass(run, opt_level=0, name="gsb.LowerPacked")


class _Lowering:
    def __init__(self, profile: Profile, tunings: Tunings) -> None:
        self._profile = profile
        self._tunings = tunings
        self._kernels: dict[str, Any] = {}

    def visit(self, _var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
        """Emit the call of the kernel."""
        if not is_packed(value):
            return None
        spec = spec_of(value)
        text = encode(spec)
        if text not in self._kernels:
            self._kernels[text] = self._kernel(value, spec, text, graph)
        types = [tensor_type(tensor) for tensor in spec.outputs()]
        return relax.call_tir(self._kernels[text], list(value.args), types)

    def _kernel(self, value: Expr, spec: Any, text: str, graph: Graph) -> Any:
        """Add the kernel of a spec to the module."""
        profile = self._profile
        tuned = self._tunings.find(text, version(spec), lambda: space(spec, profile))
        choice = None if tuned is None else tuned.choice
        words = (value.op.name.removeprefix("gsb."), variant(spec, profile, choice))
        func = kernel(spec, profile, choice)
        func = func.with_attrs({"op_pattern": OPAQUE, SPEC: text, "tirx.noalias": True})
        if tuned is not None:
            func = func.with_attr(TUNED, text_of(tuned.choice))
        return graph.add_kernel(func.without_attr("global_symbol"), "_".join(filter(None, words)))
