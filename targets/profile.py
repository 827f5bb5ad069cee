"""What a kernel may ask about the machine it is compiled for."""

from dataclasses import dataclass
from typing import Any

from gsb_tvm.targets.gpus import Gpu


@dataclass(frozen=True)
class Profile:
    """A resolved target; built by :func:`gsb_tvm.targets.resolve` only.

    Attributes
    ----------
    name
        For people: the CPU as asked for ("cortex-a72"), "x86-64 baseline", or "native (znver5)".
    kind
        TVM target kind; "llvm" or "cuda".
    mtriple, mcpu
        As LLVM takes them; never empty. Of CUDA those of the host, and so all that follows but
        ``gpu``.
    mattr
        "+feature" sorted, then "-feature" sorted. The first name everything compiled code may
        use, also what ``mcpu`` implies, because TVM reads Arm features from here.
    features
        All LLVM features of the CPU with ``mattr`` applied.
    arch
        "x86_64" or "aarch64".
    l1_bytes, l2_bytes, l3_bytes
        Data caches that one core can use; ``l3_bytes`` is 0 where there is none or it is unknown.
    num_cores
        Cores, at least 1.
    out_of_order
        Whether a core is known to go on with other instructions while it waits for one. Files of
        Arm CPUs say so.
    required_features
        What a CPU that executes the code must have, as /proc/cpuinfo (x86) or HWCAP (Arm) names.
    gpu
        The GPU that kernels are for; None where they are for the CPU.
    """

    name: str
    kind: str
    mtriple: str
    mcpu: str
    mattr: tuple[str, ...]
    features: frozenset[str]
    arch: str
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    num_cores: int
    out_of_order: bool
    required_features: tuple[str, ...]
    gpu: Gpu | None = None

    @property
    def vector_bits(self) -> int:
        """Width of an integer vector register: 512, 256 or 128."""
        if self.has_avx512:
            return 512
        return 256 if self.has_avx2 else 128

    @property
    def lanes(self) -> int:
        """Number of 32-bit lanes in a vector register."""
        return self.vector_bits // 32

    @property
    def has_fma(self) -> bool:
        """Fused multiply-add of float32 vectors."""
        return self.has_neon or "fma" in self.features

    @property
    def has_avx2(self) -> bool:
        """256-bit integer vectors."""
        return "avx2" in self.features

    @property
    def has_avx512(self) -> bool:
        """512-bit vectors with byte, doubleword and 256-bit forms (F, BW, DQ, VL)."""
        return self.features.issuperset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})

    @property
    def has_vpopcntdq(self) -> bool:
        """Population count of 32-bit and 64-bit lanes on 512 bits."""
        return self.has_avx512 and "avx512vpopcntdq" in self.features

    @property
    def has_amx_int8(self) -> bool:
        """Products of tiles of bytes (AMX-TILE, AMX-INT8).

        Also the shuffles that make bytes of bits (AVX512-VBMI, GFNI), which all such CPUs have.
        """
        needed = {"amx-tile", "amx-int8", "avx512vbmi", "gfni"}
        return self.has_avx512 and self.features.issuperset(needed)

    @property
    def has_neon(self) -> bool:
        """128-bit Arm vectors."""
        return "neon" in self.features

    @property
    def target_string(self) -> str:
        """The target in full, as it may be typed after ``--target``."""
        if self.gpu is not None:
            return f"{self.kind} -arch={self.gpu.arch} -mtriple={self.mtriple}"
        words = [self.kind, f"-mtriple={self.mtriple}", f"-mcpu={self.mcpu}"]
        if self.mattr:
            words.append(f"-mattr={','.join(self.mattr)}")
        return " ".join([*words, f"-num-cores={self.num_cores}"])

    def tvm_target(self) -> Any:
        """Build the ``tvm.target.Target``: the only form in which a target reaches TVM."""
        from tvm.target import Target

        if self.gpu is not None:
            host = {"kind": "llvm", "mtriple": self.mtriple, "mcpu": self.mcpu}
            return Target({"kind": self.kind, "arch": self.gpu.arch}, host=host)
        return Target(
            {
                "kind": self.kind,
                "mtriple": self.mtriple,
                "mcpu": self.mcpu,
                "mattr": list(self.mattr),
                "num-cores": self.num_cores,
            }
        )
