"""Replace packed operators by calls of their kernels."""

from typing import Any

from tvm import relax
from tvm.ir import IRModule
from tvm.ir.transform import Pass, PassContext, module_pass

from gsb_tvm.dialect.ops import is_packed, spec_of, tensor_type
from gsb_tvm.dialect.phases import SPEC, TUNED
from gsb_tvm.dialect.specs import encode
from gsb_tvm.passes.lay_out_columns import laid_out
from gsb_tvm.passes.rewriting import Expr, Graph, rewrite_module
from gsb_tvm.schedules.families import arranged, kernel, space, variant, version
from gsb_tvm.schedules.tunings import Tuned, Tunings
from gsb_tvm.targets import Profile

OPAQUE = 8  # TOpPattern kOpaque: FuseOps leaves the call as it is


def LowerPacked(profile: Profile, tunings: Tunings | None = None) -> Pass:
    """Replace every packed operator by ``call_tir`` of its family's kernel.

    Its parameters are those of ``tunings``, where they know the kernel, or the rule's. Constants
    are laid out as they want them.

    Before  y = gsb.dense(a, w, scale; spec)
    After   y = call_tir(dense_words, (a, w, scale))
    Requires   kernels for the target; equal specs share one PrimFunc
    Leaves alone   everything else; the rule's kernel is for arguments that are no constants
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
        self._tuned: dict[str, Tuned | None] = {}
        self._kernels: dict[tuple[str, bool], Any] = {}

    def visit(self, _var: relax.Var, value: Expr, graph: Graph) -> Expr | None:
        """Emit the call of the kernel."""
        if not is_packed(value):
            return None
        spec = spec_of(value)
        tuned = self._find(spec)
        wanted = arranged(spec, self._profile, None if tuned is None else tuned.choice)
        args = laid_out(value.args, spec, wanted)
        if args is None:
            tuned, args = None, list(value.args)
        key = (encode(spec), tuned is None)
        if key not in self._kernels:
            self._kernels[key] = self._kernel(value, spec, tuned, graph)
        types = [tensor_type(tensor) for tensor in spec.outputs()]
        return relax.call_tir(self._kernels[key], args, types)

    def _find(self, spec: Any) -> Tuned | None:
        """What records say of a spec."""
        text, profile = encode(spec), self._profile
        if text not in self._tuned:
            found = self._tunings.find(text, version(spec, profile), lambda: space(spec, profile))
            self._tuned[text] = found
        return self._tuned[text]

    def _kernel(self, value: Expr, spec: Any, tuned: Tuned | None, graph: Graph) -> Any:
        """Add the kernel of a spec to the module."""
        profile = self._profile
        choice = None if tuned is None else tuned.choice
        words = (value.op.name.removeprefix("gsb."), variant(spec, profile, choice))
        text = encode(arranged(spec, profile, choice))
        func = kernel(spec, profile, choice)
        func = func.with_attrs({"op_pattern": OPAQUE, SPEC: text, "tirx.noalias": True})
        if tuned is not None:
            func = func.with_attr(TUNED, tuned.text)
        return graph.add_kernel(func.without_attr("global_symbol"), "_".join(filter(None, words)))
