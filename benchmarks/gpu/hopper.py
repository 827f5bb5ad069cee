"""Products of bits by warp groups (``wgmma``), which Hopper alone has: no kernel of ours uses them.

Source: PTX ISA 9, "wgmma.mma_async", "Matrix Descriptor Format". Without swizzling, 8 rows of 16
bytes lie one behind the other, and such squares first along the contracted axis.
"""

from benchmarks.gpu.limits import Loop, source

ARCH = "sm_90a"
_ROWS, _COLUMNS = 64, 128  # of a product; 32 bytes are contracted
_MOST_WARPS = 8  # of a block: each thread holds 64 sums

LOOPS = (
    Loop("b1_wgmma", "MAC", _ROWS * _COLUMNS * 256 // 4, most_warps=_MOST_WARPS),
    Loop("int8_wgmma", "MAC", _ROWS * _COLUMNS * 32 // 4, most_warps=_MOST_WARPS),
)

_KINDS = {
    "b1_wgmma": "m64n128k256.s32.b1.b1.and.popc",
    "int8_wgmma": "m64n128k32.s32.s8.s8",
}
_SUMS = _ROWS * _COLUMNS // 128  # of a thread

_KERNEL = """
KERNEL __launch_bounds__({threads}) {name}(int* out) {{
  __shared__ __align__(128) unsigned b[{columns} * 8];
  for (int i = threadIdx.x; i < {columns} * 8; i += blockDim.x) b[i] = scrambled(i);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  // Where b begins, 128 bytes from square to square along the contracted axis, 256 along columns.
  const unsigned long long at = __cvta_generic_to_shared(b);
  const unsigned long long described = (at >> 4 & 0x3fff) | 8ull << 16 | 16ull << 32;
  unsigned a[4];
  for (int i = 0; i < 4; ++i) a[i] = scrambled(threadIdx.x * 4 + i);
  int d[{sums}] = {{}};
  for (int step = 0; step < STEPS; ++step) {{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
    EACH_CHAIN asm volatile("wgmma.mma_async.sync.aligned.{kind} "
                            "{{{targets}}}, {{{operands}}}, %{descriptor}, 1;"
                            : {outputs} : {inputs}, "l"(described));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }}
  int sum = 0;
  for (int i = 0; i < {sums}; ++i) sum += d[i];
  use(out, sum);
}}
"""


def compiled() -> bytes:
    """Machine code of the loops, and of the others.

    Raises
    ------
    ToolchainError
        NVIDIA's compiler is not here, or does not know the architecture.
    """
    from gsb_tvm.runtime.cuda.nvrtc import compile_source

    return compile_source("".join([source(), *map(_kernel, _KINDS)]), ARCH).cubin


def _kernel(name: str) -> str:
    return _KERNEL.format(
        name=name,
        kind=_KINDS[name],
        threads=32 * _MOST_WARPS,
        columns=_COLUMNS,
        sums=_SUMS,
        targets=", ".join(f"%{i}" for i in range(_SUMS)),
        operands=", ".join(f"%{_SUMS + i}" for i in range(4)),
        descriptor=_SUMS + 4,
        outputs=", ".join(f'"+r"(d[{i}])' for i in range(_SUMS)),
        inputs=", ".join(f'"r"(a[{i}])' for i in range(4)),
    )
