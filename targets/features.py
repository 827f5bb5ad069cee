"""Names of CPU features: what LLVM calls them, and what Linux calls them.

LLVM says which features a CPU has; Linux says which the machine has. This table joins the two, for
the features whose instructions LLVM emits from ordinary code or a kernel of ours calls. Features
that need an intrinsic no kernel uses (AES, SHA, PKU, XSAVES, ...) are left out on purpose: clouds
and small boards switch them off (a Raspberry Pi 4 is a Cortex-A72 without AES), and code that
never uses them runs there.

Sources: LLVM 22 ``X86.td`` and ``AArch64Features.td``; Linux ``arch/x86/include/asm/cpufeatures.h``
(names as in /proc/cpuinfo) and ``Documentation/arch/arm64/elf_hwcaps.rst``.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

_X86_64: dict[str, tuple[str, ...]] = {
    "cmov": ("cmov",),
    "sse": ("sse",),
    "sse2": ("sse2",),
    "sse3": ("pni",),
    "ssse3": ("ssse3",),
    "sse4.1": ("sse4_1",),
    "sse4.2": ("sse4_2",),
    "sse4a": ("sse4a",),
    "popcnt": ("popcnt",),
    # A CPU without lzcnt executes it as bsr: a wrong result instead of a fault.
    "lzcnt": ("abm",),
    "movbe": ("movbe",),
    "bmi": ("bmi1",),
    "bmi2": ("bmi2",),
    "tbm": ("tbm",),
    "xop": ("xop",),
    "fma4": ("fma4",),
    "f16c": ("f16c",),
    "fma": ("fma",),
    "avx": ("avx",),
    "avx2": ("avx2",),
    "gfni": ("gfni",),
    "avxvnni": ("avx_vnni",),
    "avxvnniint8": ("avx_vnni_int8",),
    "avxvnniint16": ("avx_vnni_int16",),
    "avxifma": ("avx_ifma",),
    "avxneconvert": ("avx_ne_convert",),
    "avx512f": ("avx512f",),
    "avx512bw": ("avx512bw",),
    "avx512cd": ("avx512cd",),
    "avx512dq": ("avx512dq",),
    "avx512vl": ("avx512vl",),
    "avx512ifma": ("avx512ifma",),
    "avx512vbmi": ("avx512vbmi",),
    "avx512vbmi2": ("avx512_vbmi2",),
    "avx512vnni": ("avx512_vnni",),
    "avx512bitalg": ("avx512_bitalg",),
    "avx512vpopcntdq": ("avx512_vpopcntdq",),
    "avx512bf16": ("avx512_bf16",),
    "avx512fp16": ("avx512_fp16",),
    "amx-tile": ("amx_tile",),
    "amx-int8": ("amx_int8",),
    # Linux has no flag for AVX10; a name no machine reports makes such code refuse to load.
    "avx10.1": ("avx10_1",),
    "avx10.2": ("avx10_2",),
    "egpr": ("apx",),
    "ndd": ("apx",),
    "nf": ("apx",),
    "ccmp": ("apx",),
    "ppx": ("apx",),
    "push2pop2": ("apx",),
    "zu": ("apx",),
}

_AARCH64: dict[str, tuple[str, ...]] = {
    "fp-armv8": ("fp",),
    "neon": ("asimd",),
    "lse": ("atomics",),
    "lse2": ("uscat",),
    "rcpc": ("lrcpc",),
    "rcpc-immo": ("ilrcpc",),
    "rcpc3": ("lrcpc3",),
    "rdm": ("asimdrdm",),
    "fullfp16": ("fphp", "asimdhp"),
    "fp16fml": ("asimdfhm",),
    "dotprod": ("asimddp",),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
    "complxnum": ("fcma",),
    "jsconv": ("jscvt",),
    "fptoint": ("frint",),
    "sha3": ("sha3", "sha512"),  # EOR3, BCAX, XAR: LLVM emits them for plain logic
    "cssc": ("cssc",),
    "hbc": ("hbc",),
    "mops": ("mops",),
    "faminmax": ("faminmax",),
    "sve": ("sve",),
    "sve2": ("sve2",),
    "sve-b16b16": ("sveb16b16",),
}

LINUX_NAMES: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"x86_64": MappingProxyType(_X86_64), "aarch64": MappingProxyType(_AARCH64)}
)
"""Architecture -> LLVM feature -> the Linux names a machine that has it reports."""

BASELINE: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # Without these LLVM cannot return a float or refuses 64-bit code.
        "x86_64": frozenset({"64bit", "64bit-mode", "x87", "cx8", "sse", "sse2"}),
        "aarch64": frozenset({"fp-armv8", "neon"}),
    }
)
"""Architecture -> LLVM features that the 64-bit calling convention needs."""


def emitted(arch: str, llvm_features: Iterable[str]) -> frozenset[str]:
    """Those of ``llvm_features`` whose instructions compiled code may contain."""
    return frozenset(llvm_features) & LINUX_NAMES[arch].keys()


def linux_names(arch: str, llvm_features: Iterable[str]) -> frozenset[str]:
    """Linux names of what code compiled with ``llvm_features`` needs from the machine."""
    table = LINUX_NAMES[arch]
    return frozenset(name for f in emitted(arch, llvm_features) for name in table[f])


def present(arch: str, machine: frozenset[str]) -> frozenset[str]:
    """LLVM features that a machine reporting the Linux names ``machine`` has."""
    return frozenset(f for f, names in LINUX_NAMES[arch].items() if machine.issuperset(names))
