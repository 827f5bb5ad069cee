"""What a kernel may ask about a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Gpu:
    """A GPU by the architecture of its machine code.

    Attributes
    ----------
    arch
        As NVIDIA's compilers name it: "sm_90".
    multiprocessors
        Of the largest common chip of the architecture; a rule that fills them fills smaller ones.
    shared_bytes
        Shared memory of a multiprocessor.
    has_bit_products
        Whether tensor cores multiply bits: ``mma.m16n8k256`` with ``and.popc`` becomes one
        instruction, BMMA. Later architectures emulate it, earlier ones reject it.
    """

    arch: str
    multiprocessors: int
    shared_bytes: int
    has_bit_products: bool

    @property
    def capability(self) -> tuple[int, int]:
        """Compute capability, major and minor number."""
        return capability(self.arch)


def capability(arch: str) -> tuple[int, int]:
    """Compute capability of an architecture, known here or not: (9, 0) for "sm_90"."""
    digits = arch.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])


STATIC_SHARED_BYTES = 48 << 10
"""Shared memory that a block has without asking for more, on every architecture."""

# Multiprocessors: NVIDIA's architecture white papers (T4, A100, GA102, Orin, AD102, H100 SXM, B200,
# GB202). Shared memory: CUDA C++ Programming Guide, "Technical Specifications per Compute
# Capability". Products of bits: machine code of NVRTC 13.5, tests/schedules/cuda.
_KNOWN = (
    Gpu("sm_75", 40, 64 << 10, False),
    Gpu("sm_80", 108, 164 << 10, True),
    Gpu("sm_86", 84, 100 << 10, True),
    Gpu("sm_87", 16, 164 << 10, True),
    Gpu("sm_89", 142, 100 << 10, True),
    Gpu("sm_90", 132, 228 << 10, True),
    Gpu("sm_100", 148, 228 << 10, False),
    Gpu("sm_120", 188, 100 << 10, False),
)
GPUS: Mapping[str, Gpu] = MappingProxyType({gpu.arch: gpu for gpu in _KNOWN})
"""Architecture -> what is known of it: those that code is generated for."""
