// Words of CUDA that TIR has not, each a function that kernels call by its name.
//
// Sources: PTX ISA 9, "mma", "cp.async"; CUDA C++ Programming Guide, "Warp Shuffle Functions".
// A test harness that runs kernels on a CPU defines GSB_EMULATED and the same functions.
#if !defined(GSB_EMULATED) && !defined(GSB_DEVICE)

#define GSB_DEVICE __device__ __forceinline__

// d (16 x 8, int32) += popc(a & b) of a (16 x 256 bits, by rows) and b (256 x 8 bits, by columns).
// Lane l holds of a the words l % 4 and l % 4 + 4 of rows l / 4 and l / 4 + 8: (row, word), (row +
// 8, word), (row, word + 4), (row + 8, word + 4); of b the same two words of column l / 4; of d
// rows l / 4 and l / 4 + 8, columns 2 (l % 4) and the next: (row, column), (row, column + 1), ...
GSB_DEVICE void gsb_mma_256(int* d, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The same along 128 bits: of a (row, word), (row + 8, word), of b the one word.
GSB_DEVICE void gsb_mma_128(int* d, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc "
      "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#endif
}

// d (16 x 8, int32) += a * b of bytes, a (16 x 32, by rows) and b (32 x 8, by columns). Lane l holds
// of a four neighbours of a row in each word: row l / 4 from 4 (l % 4) on, row l / 4 + 8, and of both
// rows those 16 further on; of b the same two words of column l / 4; of d the same as above.
GSB_DEVICE void gsb_mma_bytes(int* d, const unsigned* a, const unsigned* b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.u8.s32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif __CUDA_ARCH__ >= 750
#pragma unroll
  for (int i = 0; i < 4; ++i)  // both rows by both halves
    asm("mma.sync.aligned.m8n8k16.row.col.s32.u8.u8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+r"(d[i % 2 * 2]), "+r"(d[i % 2 * 2 + 1])
        : "r"(a[i]), "r"(b[i / 2]));
#endif
}

// 16 bytes from global to shared memory, both aligned; there once gsb_wait says so.
GSB_DEVICE void gsb_copy(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
#else
  *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#endif
}

// Ends a group of copies of this thread.
GSB_DEVICE void gsb_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING groups of this thread are on their way.
template <int PENDING>
GSB_DEVICE void gsb_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// A word whose bit l says what lane l says.
GSB_DEVICE unsigned gsb_ballot(bool mine) { return __ballot_sync(0xffffffffu, mine); }

// Whether any thread of the block says so; all of them wait for each other.
GSB_DEVICE bool gsb_any_of_block(bool mine) { return __syncthreads_or(mine); }

// What another lane of the warp holds.
template <typename T>
GSB_DEVICE T gsb_from_lane(T mine, int lane) {
  return __shfl_sync(0xffffffffu, mine, lane);
}

template <typename T>
GSB_DEVICE T gsb_exchange(T mine, int distance) {
  return __shfl_xor_sync(0xffffffffu, mine, distance);
}

// Column `lane` of a square of bits of which lane l holds row l, bit i in column i.
GSB_DEVICE unsigned gsb_turn(unsigned row, int lane) {
  unsigned low = 0xffffu;  // columns whose number lacks the bit `distance`
#pragma unroll
  for (int distance = 16; distance; distance >>= 1) {
    const unsigned other = gsb_exchange(row, distance);
    const unsigned kept = lane & distance ? ~low : low;
    const unsigned moved = __funnelshift_l(other, other, lane & distance ? -distance : distance);
    row = (row & kept) | (moved & ~kept);
    low ^= low << (distance >> 1);
  }
  return row;
}

GSB_DEVICE int gsb_atomic_add(int* at, int value) { return atomicAdd(at, value); }
GSB_DEVICE int gsb_atomic_max(int* at, int value) { return atomicMax(at, value); }
// The largest of all lanes of the warp and of what is there.
GSB_DEVICE void gsb_warp_max_to(int* at, unsigned mine) {
#if __CUDA_ARCH__ >= 800
  const unsigned largest = __reduce_max_sync(0xffffffffu, mine);
#else
  unsigned largest = mine;
  for (int distance = 16; distance > 0; distance /= 2)
    largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
#endif
  if (threadIdx.x % 32 == 0) atomicMax(reinterpret_cast<unsigned*>(at), largest);
}
GSB_DEVICE int gsb_atomic_or(int* at, int value) { return atomicOr(at, value); }
GSB_DEVICE int gsb_atomic_exchange(int* at, int value) { return atomicExch(at, value); }

// What this thread wrote before is seen by all others before what it writes after.
GSB_DEVICE void gsb_fence() { __threadfence(); }

// x, of which TVM does not know what it was made of.
GSB_DEVICE float gsb_kept(float x) { return x; }

// The nearest integer, half to even: a sum with a large number and back, which TVM would cancel.
GSB_DEVICE float gsb_round(float x) { return rintf(x); }

// The larger and the smaller, NaN where either is.
GSB_DEVICE float gsb_max(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
#else
  return a > b || a != a ? a : b;
#endif
}
GSB_DEVICE float gsb_min(float a, float b) {
#if __CUDA_ARCH__ >= 800
  float c;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
#else
  return a < b || a != a ? a : b;
#endif
}

// Products and sums that are rounded once.
GSB_DEVICE float gsb_fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }

#endif

#ifndef GSB_BYTES
#define GSB_BYTES

// A quarter of gsb_mma_128, by bytes: of each byte of a word bit S and, as a second half, bit S + 4.
// It doesn't matter in what order bits are multiplied.
template <int S>
GSB_DEVICE void gsb_bytes(int* d, const unsigned* a, const unsigned* b) {
  const unsigned lowest = 0x01010101u;
  const unsigned of_a[4] = {a[0] >> S & lowest, a[1] >> S & lowest, a[0] >> (S + 4) & lowest,
                            a[1] >> (S + 4) & lowest};
  const unsigned of_b[2] = {b[0] >> S & lowest, b[0] >> (S + 4) & lowest};
  gsb_mma_bytes(d, of_a, of_b);
}

#endif
