"""The way of a model, phase by phase; each phase is a list of passes."""

from tvm.ir.transform import Pass
from tvm.relax import transform

from gsb_tvm.passes.drop_zero_planes import DropZeroPlanes
from gsb_tvm.passes.fold_thresholds import FoldThresholds
from gsb_tvm.passes.fuse_binarize import FuseBinarize
from gsb_tvm.passes.fuse_dense_steps import FuseDenseSteps
from gsb_tvm.passes.fuse_lattices import FuseLattices
from gsb_tvm.passes.fuse_layer_norm import FuseLayerNorm
from gsb_tvm.passes.fuse_patches import FusePatches
from gsb_tvm.passes.keep_names import KeepNames
from gsb_tvm.passes.lower_packed import LowerPacked
from gsb_tvm.passes.pack_attention import PackAttention
from gsb_tvm.passes.pack_dense import PackDense
from gsb_tvm.passes.pack_matmul import PackMatmul
from gsb_tvm.passes.recognize_planes import RecognizePlanes
from gsb_tvm.passes.schedule_float import ScheduleFloat
from gsb_tvm.passes.simplify_views import SimplifyViews
from gsb_tvm.passes.split_columns import SplitColumns
from gsb_tvm.passes.store_lattices import StoreLattices
from gsb_tvm.passes.store_repeats import StoreRepeats
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.targets import Profile


def recognition_passes() -> list[Pass]:
    """Relax in, Relax out: float graph to planes and their products."""
    return [
        FuseLayerNorm(),
        RecognizePlanes(),
        transform.DeadCodeElimination(),
    ]


def packing_passes(profile: Profile) -> list[Pass]:
    """Relax in, Relax out: planes to words, float steps into their neighbours."""
    return [
        SplitColumns(),
        transform.DeadCodeElimination(),
        PackAttention(),
        PackDense(profile),
        PackMatmul(),
        # One activation feeds several dense layers: it is packed once.
        transform.EliminateCommonSubexpr(),
        transform.DeadCodeElimination(),
        SimplifyViews(),
        transform.DeadCodeElimination(),
        FuseDenseSteps(),
        FoldThresholds(),
        DropZeroPlanes(),
        FuseBinarize(),
        FusePatches(),
        transform.DeadCodeElimination(),
    ]


def lowering_passes(profile: Profile, tunings: Tunings | None = None) -> list[Pass]:
    """Relax to TIR: kernels for packed operators, scheduled loops for float ones."""
    return [
        LowerPacked(profile, tunings),
        StoreLattices(),
        KeepNames(FuseLattices()),
        StoreRepeats(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        KeepNames(transform.FuseOps()),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        ScheduleFloat(profile, tunings),
    ]
