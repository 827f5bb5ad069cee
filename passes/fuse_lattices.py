"""Keep an int8 weight, its scale and its product in one kernel."""

from tvm.ir import IRModule
from tvm.ir.transform import Pass, PassContext, module_pass
from tvm.relax.dpl import is_const, is_op, wildcard
from tvm.relax.transform import FuseOpsByPattern


def FuseLattices() -> Pass:
    """Group ``astype(int8) * scale`` with the product that reads it, and its bias.

    Before  w = multiply(astype(q), a);  y = add(matmul(x, w), b)
    After   y = one primitive function of x, q, a, b
    Requires   q and a constant, as StoreLattices leaves them
    Leaves alone   products with float weights
    Exact   yes: nothing is computed differently
    Source   docs/performance.md, What did not help; TVM's own fusion only looks downstream of a
             product and would write the float weight to memory
    """
    weight = is_op("relax.multiply")(is_op("relax.astype")(is_const()), is_const())
    patterns = []
    for name in ("relax.matmul", "relax.nn.conv2d"):
        product = is_op(name)(wildcard(), weight)
        biased = is_op("relax.add")(product, is_const())
        patterns += [(f"{name}.lattice.bias", biased), (f"{name}.lattice", product)]
    fuse = FuseOpsByPattern(patterns, bind_constants=False, annotate_codegen=False)

    def run(mod: IRModule, _ctx: PassContext) -> IRModule:
        return fuse(mod)

    return module_pass(run, opt_level=0, name="gsb.FuseLattices")
