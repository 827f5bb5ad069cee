"""Holding engines to an instruction set, where they can be held."""

from gsb_tvm.targets import missing_here, resolve

NATIVE = "native"
ISAS = (NATIVE, "avx2", "avx512")

# Best first: the one with VPOPCNTDQ where this machine has that.
_TARGETS = {
    "avx2": ("llvm -mcpu=haswell",),
    "avx512": ("llvm -mcpu=icelake-server", "llvm -mcpu=skylake-avx512"),
}
# Names from oneDNN's guide "CPU Dispatcher Control", PyTorch's ATen/native/DispatchStub.cpp and
# oneMKL's guide "Instruction Set Specific Dispatching". AVX512_CORE_BF16 is all of AVX-512 but
# fp16, and without AMX.
_SETTINGS = {
    NATIVE: {},
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "DNNL_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "avx512": {
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "DNNL_MAX_CPU_ISA": "AVX512_CORE_BF16",
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}

# What the environment does not reach. OpenVINO's runtime model names gemm_mlas_f32 and, for norms,
# jit_avx512_f32 where oneDNN is held to AVX2.
_UNHELD = {
    ("avx2", "onnx_runtime"): "not held: uses all the CPU has",
    ("avx512", "onnx_runtime"): "not held: uses all the CPU has",
    ("avx2", "open_vino"): "held in part: MLAS and norms are not",
}


def target_of(isa: str) -> str:
    """Target for our compiler: the best of the instruction set that this machine runs."""
    if isa == NATIVE:
        return NATIVE
    return next(name for name in _TARGETS[isa] if not missing_here(resolve(name)))


def is_runnable(isa: str) -> bool:
    """Whether this machine has the instruction set."""
    return isa == NATIVE or any(not missing_here(resolve(name)) for name in _TARGETS[isa])


def settings(isa: str) -> dict[str, str]:
    """Environment that holds the opponents to it."""
    return _SETTINGS[isa]


def remark(isa: str, module: str) -> str:
    """What is to be said of the engines of a module that are not held, or nothing."""
    return _UNHELD.get((isa, module), "")
