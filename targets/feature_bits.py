"""Where a CPU or its system says that it has a feature: a word, a bit, and saved registers.

For programs that check a machine without /proc/cpuinfo: an artefact carries these numbers, and
``gsb_tvm/cpp/include/gsb_tvm/cpu.h`` compares them with CPUID or the auxiliary vector. Words:

===========  ======  ==========================================================
aarch64      0, 1    AT_HWCAP, AT_HWCAP2 of the auxiliary vector
x86_64       0, 4    CPUID leaf 1: EDX, ECX
x86_64       1, 6    CPUID leaf 0x80000001: EDX, ECX
x86_64       9, 16   CPUID leaf 7, subleaf 0: EBX, ECX
x86_64       18      CPUID leaf 7, subleaf 0: EDX
x86_64       12      CPUID leaf 7, subleaf 1: EAX
x86_64       64      CPUID leaf 7, subleaf 1: EDX; no word of Linux, so far above Linux's numbers
x86_64       65      AVX10: bit n says that the version in CPUID leaf 0x24 is n or later; ours, too
===========  ======  ==========================================================

Sources: Linux 6.12, ``arch/x86/include/asm/cpufeatures.h`` (numbers of words, bits) and
``arch/arm64/include/uapi/asm/hwcap.h``; Intel 319433, Architecture Instruction Set Extensions
(leaf 7, subleaf 1; leaf 0x24), 355828, APX, and 355989, AVX10; for XCR0 Intel SDM, volume 1, 13.3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma "
    "lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
).split()
_HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm "
    "svebf16 i8mm bf16 dgh rng bti mte ecv afp rpres mte3 sme smei16i64 smef64f64 smei8i32 "
    "smef16f32 smeb16f32 smef32f32 smefa64 wfxt ebf16 sveebf16 cssc rprfm sve2p1 sme2 sme2p1 "
    "smei16i32 smebi32i32 smeb16b16 smef16f16 mops hbc sveb16b16 lrcpc3 lse128 fpmr lut faminmax"
).split()

LEAF_7_1_EDX = 64
AVX10_VERSION = 65

# Parts of the state that the system must save at a switch of threads: bits of XCR0.
_AVX = 1 << 1 | 1 << 2  # SSE, the upper halves of YMM
_AVX512 = _AVX | 1 << 5 | 1 << 6 | 1 << 7  # masks, the upper halves of ZMM, ZMM16 to ZMM31
_AMX = 1 << 17 | 1 << 18  # tile configuration, tile data
_APX = 1 << 19  # R16 to R31

# (word, XCR0) -> the features there, each with its bit.
_X86_64: dict[tuple[int, int], dict[str, int]] = {
    (0, 0): {"cmov": 15, "sse": 25, "sse2": 26},
    (4, 0): {"pni": 0, "ssse3": 9, "sse4_1": 19, "sse4_2": 20, "movbe": 22, "popcnt": 23},
    (4, _AVX): {"fma": 12, "avx": 28, "f16c": 29},
    (6, 0): {"abm": 5, "sse4a": 6, "tbm": 21},
    (6, _AVX): {"xop": 11, "fma4": 16},
    (9, 0): {"bmi1": 3, "bmi2": 8},
    (9, _AVX): {"avx2": 5},
    (9, _AVX512): {
        "avx512f": 16,
        "avx512dq": 17,
        "avx512ifma": 21,
        "avx512cd": 28,
        "avx512bw": 30,
        "avx512vl": 31,
    },
    (12, _AVX): {"avx_vnni": 4, "avx_ifma": 23},
    (12, _AVX512): {"avx512_bf16": 5},
    (16, 0): {"gfni": 8},
    (16, _AVX512): {
        "avx512vbmi": 1,
        "avx512_vbmi2": 6,
        "avx512_vnni": 11,
        "avx512_bitalg": 12,
        "avx512_vpopcntdq": 14,
    },
    (18, _AVX512): {"avx512_fp16": 23},
    (18, _AMX): {"amx_tile": 24, "amx_int8": 25},
    (LEAF_7_1_EDX, _AVX): {"avx_vnni_int8": 4, "avx_ne_convert": 5, "avx_vnni_int16": 10},
    (LEAF_7_1_EDX, _APX): {"apx": 21},
    (AVX10_VERSION, _AVX512): {"avx10_1": 1, "avx10_2": 2},
}


@dataclass(frozen=True, order=True)
class FeatureBit:
    """One feature by its Linux name; ``xcr0`` 0 where no state beyond x86-64's own is needed."""

    name: str
    word: int
    bit: int
    xcr0: int = 0


def _by_name(bits: Iterable[FeatureBit]) -> Mapping[str, FeatureBit]:
    return MappingProxyType({feature.name: feature for feature in bits})


KNOWN: Mapping[str, Mapping[str, FeatureBit]] = MappingProxyType(
    {
        "x86_64": _by_name(
            FeatureBit(name, word, bit, xcr0)
            for (word, xcr0), names in _X86_64.items()
            for name, bit in names.items()
        ),
        "aarch64": _by_name(
            FeatureBit(name, word, bit)
            for word, names in enumerate((_HWCAP, _HWCAP2))
            for bit, name in enumerate(names)
        ),
    }
)
"""Architecture -> Linux name -> its place: all of HWCAP; of x86-64 what compiled code may need."""


def feature_bits(arch: str, names: Iterable[str]) -> tuple[FeatureBit, ...]:
    """Places of the Linux features ``names`` of ``arch``, sorted by name, each once."""
    return tuple(KNOWN[arch][name] for name in sorted(set(names)))
