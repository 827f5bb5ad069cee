// Loops of nothing but what a limit is made of. CHAINS, STEPS, CHUNK, AGAIN and PAUSE are defined
// by limits.py, which also says how much a launch does. Operands differ from thread to thread: the
// clock that a chip holds depends on how many bits flip.

#define KERNEL extern "C" __global__ void
#define EACH_CHAIN _Pragma("unroll") for (int c = 0; c < CHAINS; ++c)

__device__ unsigned scrambled(unsigned x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// What a loop has made is used, or the compiler would leave the loop out.
template <typename T>
__device__ void use(T* out, T value) {
  if (value == static_cast<T>(12345)) out[threadIdx.x] = value;
}

KERNEL nothing(int*) {}

// Lets the next launch begin, then waits for the one before: what a launch that overlaps costs.
KERNEL overlapping(int*) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Holds a stream up for PAUSE ns, in which the host fills it.
KERNEL pause_stream(int*) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  while (now - start < PAUSE);
}

// Products of 16 x 8 by a function of our kernels.
template <void (*MULTIPLY)(int*, const unsigned*, const unsigned*)>
__device__ void products(int* out) {
  int d[CHAINS][4] = {};
  unsigned a[4], b[CHAINS][2];
  for (int i = 0; i < 4; ++i) a[i] = scrambled(threadIdx.x * 4 + i);
  EACH_CHAIN for (int i = 0; i < 2; ++i) b[c][i] = scrambled(threadIdx.x + 1000 * (2 * c + i));
  for (int step = 0; step < STEPS; ++step) EACH_CHAIN MULTIPLY(d[c], a, b[c]);
  int sum = 0;
  EACH_CHAIN sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
  use(out, sum);
}

KERNEL b1_mma(int* out) { products<gsb_mma_256>(out); }
KERNEL int8_mma(int* out) { products<gsb_mma_bytes>(out); }

KERNEL bf16_mma(float* out) {
  float d[CHAINS][4] = {};
  unsigned a[4], b[CHAINS][2];
  // Exponents of numbers below 2: sums stay finite.
  for (int i = 0; i < 4; ++i) a[i] = scrambled(threadIdx.x * 4 + i) & 0xbfffbfffu;
  EACH_CHAIN for (int i = 0; i < 2; ++i)
      b[c][i] = scrambled(threadIdx.x + 1000 * (2 * c + i)) & 0xbfffbfffu;
  for (int step = 0; step < STEPS; ++step) EACH_CHAIN {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[c][0]), "+f"(d[c][1]), "+f"(d[c][2]), "+f"(d[c][3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[c][0]), "r"(b[c][1]));
  }
  float sum = 0;
  EACH_CHAIN sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
  use(out, sum);
}

// Words counted one by one: what there is without products of bits.
KERNEL popcount(int* out) {
  int d[CHAINS] = {};
  unsigned a = scrambled(threadIdx.x), b[CHAINS];
  EACH_CHAIN b[c] = scrambled(threadIdx.x + 1000 * c);
  for (int step = 0; step < STEPS; ++step) {
    EACH_CHAIN d[c] += __popc(a & b[c]);
    a += 0x9e3779b9u;
  }
  int sum = 0;
  EACH_CHAIN sum += d[c];
  use(out, sum);
}

KERNEL fused(float* out) {
  float d[CHAINS];
  const float x = 1.0f + threadIdx.x * 1e-6f;
  EACH_CHAIN d[c] = c + threadIdx.x;
  for (int step = 0; step < STEPS; ++step) EACH_CHAIN d[c] = __fmaf_rn(d[c], x, 0.5f);
  float sum = 0;
  EACH_CHAIN sum += d[c];
  use(out, sum);
}

// CHUNK bytes of each block, 16 of each thread at a time.
__device__ void read(const uint4* from, int* out) {
  uint4 sum = {0, 0, 0, 0};
#pragma unroll 8
  for (int i = threadIdx.x; i < CHUNK / 16; i += blockDim.x) {
    const uint4 x = __ldcg(from + i);
    sum.x ^= x.x, sum.y ^= x.y, sum.z ^= x.z, sum.w ^= x.w;
  }
  use(out, static_cast<int>(sum.x ^ sum.y ^ sum.z ^ sum.w));
}

KERNEL memory_read(const uint4* from, int* out) {
  read(from + static_cast<size_t>(blockIdx.x) * (CHUNK / 16), out);
}

// The same AGAIN bytes by many blocks: they come from the cache of level 2.
KERNEL cache_read(const uint4* from, int* out) {
  read(from + static_cast<size_t>(blockIdx.x % (AGAIN / CHUNK)) * (CHUNK / 16), out);
}

KERNEL memory_copy(const uint4* from, uint4* to) {
  const size_t base = static_cast<size_t>(blockIdx.x) * (CHUNK / 16);
#pragma unroll 8
  for (int i = threadIdx.x; i < CHUNK / 16; i += blockDim.x) to[base + i] = __ldcs(from + base + i);
}
