"""Schedule the float kernels that TVM's legalisation leaves as plain loops for a GPU."""

from tvm import tirx
from tvm.ir import IRModule
from tvm.ir.transform import Pass, PassContext, module_pass

from gsb_tvm.dialect.phases import SPEC
from gsb_tvm.schedules.float import cuda
from gsb_tvm.targets import Profile


def ScheduleFloatCuda(profile: Profile) -> Pass:
    """Bind the loops of every PrimFunc that is not a kernel of a packed family to threads.

    Before  a fused PrimFunc as FuseTIR writes it: one scalar loop nest per operator
    After   the same computation as launches of blocks of threads
    Requires   nothing: the last of the rules knows every loop nest
    Leaves alone   packed kernels
    Exact   elementwise steps keep their order; sums may be reassociated
    Source   TVM's dlight, general schedules for GPUs
    """

    def run(mod: IRModule, _ctx: PassContext) -> IRModule:
        out = mod.clone()
        for variable, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and not (func.attrs and SPEC in func.attrs):
                out.update_func(variable, cuda.schedule(func, profile))
        return out

    return module_pass(run, opt_level=0, name="gsb.ScheduleFloatCuda")
