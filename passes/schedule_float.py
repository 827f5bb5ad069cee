"""Schedule the float kernels that TVM's legalisation leaves as plain loops."""

from tvm import tirx
from tvm.ir import IRModule
from tvm.ir.transform import Pass, PassContext, module_pass

from gsb_tvm.dialect.phases import SPEC
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.targets import Profile


def ScheduleFloat(profile: Profile) -> Pass:
    """Vectorise and tile every PrimFunc that is not a kernel of a packed family.

    Before  a fused PrimFunc as FuseTIR writes it: one scalar loop nest per operator
    After   the same computation tiled for the target's registers and caches
    Requires   a rule that knows the loop nest
    Leaves alone   packed kernels, and loop nests that no rule knows
    Exact   elementwise steps keep their order; sums may be reassociated
    Source   docs/architecture.md, Float operators
    """

    def run(mod: IRModule, _ctx: PassContext) -> IRModule:
        out = mod.clone()
        for variable, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and not (func.attrs and SPEC in func.attrs):
                scheduled = float_kernels.schedule(func, profile)
                if scheduled is not None:
                    out.update_func(variable, scheduled)
        return out

    return module_pass(run, opt_level=0, name="gsb.ScheduleFloat")
