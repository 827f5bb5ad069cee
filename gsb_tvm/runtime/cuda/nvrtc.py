"""NVIDIA's compiler, which needs no GPU, no driver and no host compiler: source to machine code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gsb_tvm.dialect.errors import ToolchainError

# TVM's source includes these of NVIDIA's toolkit. Two have names that the standard library has, and
# those that are only declared are imported and not used; another, which source with int8 asks for,
# declares what NVRTC knows without it.
HEADERS = {
    "sm_61_intrinsics.h": "",
    "math_constants.h": """
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
""",
    "cuda/std/cstdint": """
namespace cuda { namespace std {
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
} }
""",
    "cuda/std/type_traits": """
namespace cuda { namespace std {
template <class T, T v> struct integral_constant { static constexpr T value = v; };
template <class A, class B> struct is_same : integral_constant<bool, false> {};
template <class A> struct is_same<A, A> : integral_constant<bool, true> {};
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;
template <class T> struct is_integral;
template <class T> struct is_signed;
template <class T> struct is_unsigned;
template <class T> struct is_floating_point;
template <bool B, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { typedef T type; };
template <bool B, class T, class F> struct conditional { typedef T type; };
template <class T, class F> struct conditional<false, T, F> { typedef F type; };
} }
""",
}


@dataclass(frozen=True)
class Resources:
    """What a device function takes: registers of a thread, and bytes.

    ``spilled_bytes`` counts what a thread writes to memory for want of registers, ``stack_bytes``
    what it has there.
    """

    registers: int
    shared_bytes: int
    stack_bytes: int
    spilled_bytes: int


@dataclass(frozen=True)
class DeviceCode:
    """Machine code for one architecture, PTX for later ones, and what each function takes."""

    arch: str
    cubin: bytes
    ptx: bytes
    resources: Mapping[str, Resources]

    @property
    def ptx_text(self) -> str:
        """PTX for people."""
        return self.ptx.rstrip(b"\0").decode()


def compile_source(source: str, arch: str) -> DeviceCode:
    """Compile CUDA C++ for ``arch``, such as "sm_90".

    Raises
    ------
    ToolchainError
        NVRTC is not installed, or does not know the architecture.
    """
    nvrtc = _nvrtc()
    names = [name.encode() for name in HEADERS]
    headers = [text.encode() for text in HEADERS.values()]
    program = _checked(
        nvrtc,
        nvrtc.nvrtcCreateProgram(source.encode(), b"kernels.cu", len(names), headers, names),
    )
    # Without contraction: the graph rounds after every step.
    options = [f"-arch={arch}", "-std=c++17", "-fmad=false", "-w"]
    options += ["-default-device", "-Xptxas", "-v"]
    try:
        (result,) = nvrtc.nvrtcCompileProgram(
            program, len(options), [option.encode() for option in options]
        )
        log = _text(nvrtc, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        if result == nvrtc.nvrtcResult.NVRTC_ERROR_INVALID_OPTION:
            raise ToolchainError(
                f"NVRTC {_version(nvrtc)} does not know {arch}, only "
                f"{', '.join(f'sm_{each}' for each in supported())}. "
                "Install a newer nvidia-cuda-nvrtc, or name one of these with -arch=."
            )
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            first = next((s.strip() for s in log.splitlines() if "error" in s), "no reason given")
            raise RuntimeError(f"{log[:4000]}\nNVRTC refuses generated source for {arch}: {first}")
        cubin = _bytes(nvrtc, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program)
        ptx = _bytes(nvrtc, nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return DeviceCode(arch, cubin, ptx, resources(log))


def supported() -> list[int]:
    """Compute capabilities, ten times the major number plus the minor, that NVRTC compiles for."""
    nvrtc = _nvrtc()
    _, *found = nvrtc.nvrtcGetSupportedArchs()
    return [int(each) for each in found[-1]]


def version() -> str:
    """NVRTC's; raises as :func:`compile_source` where it is not installed."""
    return _version(_nvrtc())


_FUNCTION = re.compile(r"Compiling entry function '(\w+)' for")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def resources(log: str) -> dict[str, Resources]:
    """What ``ptxas -v`` says of each function."""
    found = {}
    for part in log.split("Compiling entry function")[1:]:
        name = _FUNCTION.match(f"Compiling entry function{part}")
        stack, used, shared = _STACK.search(part), _USED.search(part), _SHARED.search(part)
        if name and stack and used:
            shared_bytes = int(shared[1]) if shared else 0
            found[name[1]] = Resources(int(used[1]), shared_bytes, int(stack[1]), int(stack[2]))
    return found


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        _checked(nvrtc, nvrtc.nvrtcVersion())
    except (ImportError, RuntimeError) as err:
        raise ToolchainError(
            f"NVIDIA's compiler NVRTC is not here ({err}). CUDA kernels are compiled with it; it "
            "needs no GPU and no driver. Install it with pip install 'gsb-tvm[cuda]'."
        ) from err
    return nvrtc


def _version(nvrtc: Any) -> str:
    _, major, minor = nvrtc.nvrtcVersion()
    return f"{major}.{minor}"


def _checked(nvrtc: Any, answer: tuple[Any, ...]) -> Any:
    result, *values = answer
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"NVRTC: {nvrtc.nvrtcGetErrorString(result)[1].decode()}")
    return values[0] if values else None


def _bytes(nvrtc: Any, size: Any, get: Any, program: Any) -> bytes:
    room = bytearray(int(_checked(nvrtc, size(program))))
    _checked(nvrtc, get(program, room))
    return bytes(room)


def _text(nvrtc: Any, size: Any, get: Any, program: Any) -> str:
    return _bytes(nvrtc, size, get, program).rstrip(b"\0").decode("utf-8", "replace")
