"""Schedule the float kernels that TVM's legalisation leaves as plain loops."""

from typing import Any

from tvm import tirx
from tvm.ir import IRModule
from tvm.ir.transform import Pass, PassContext, module_pass

from gsb_tvm.dialect.phases import SPEC, TUNED
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.targets import Profile


def ScheduleFloat(profile: Profile, tunings: Tunings | None = None) -> Pass:
    """Vectorise and tile, or bind to threads, every PrimFunc that is no kernel of a packed family.

    Parameters are those of ``tunings``, where they know what the PrimFunc computes, or the rule's.

    Before  a fused PrimFunc as FuseTIR writes it: one scalar loop nest per operator
    After   the same computation tiled for the target's registers and caches; for a GPU as launches
    Requires   a rule that knows the loop nest; for a GPU there always is one
    Leaves alone   packed kernels, and loop nests that no rule knows
    Exact   elementwise steps keep their order; sums may be reassociated
    Source   docs/architecture.md, Float operators; for GPUs TVM's dlight
    """
    known = tunings or Tunings(profile)

    def run(mod: IRModule, _ctx: PassContext) -> IRModule:
        out = mod.clone()
        for variable, func in mod.functions_items():
            if isinstance(func, tirx.PrimFunc) and not (func.attrs and SPEC in func.attrs):
                if float_kernels.is_tunable(func, profile):
                    out.update_func(variable, _scheduled(func, profile, known))
        return out

    return module_pass(run, opt_level=0, name="gsb.ScheduleFloat")


def _scheduled(func: tirx.PrimFunc, profile: Profile, tunings: Tunings) -> tirx.PrimFunc:
    key, version = float_kernels.key(func), float_kernels.version(profile)
    tuned = tunings.find(key, version, lambda: float_kernels.space(func, profile))
    choice = None if tuned is None else tuned.choice
    scheduled: Any = float_kernels.schedule(func, profile, choice)
    return scheduled if tuned is None else scheduled.with_attr(TUNED, tuned.text)
