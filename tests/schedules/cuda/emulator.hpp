// CUDA on a CPU: what the source of kernels, as it is generated, asks of the compiler.
//
// Threads are run by emulator.cc. Semantics of operations: PTX ISA 9, "mma.m16n8k256",
// "mma.m16n8k32", "cp.async".
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define GSB_EMULATED
#define GSB_DEVICE inline
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ __attribute__((section("gsb_shared"))) static
template <typename T>
inline T max(T a, T b) {
  return a < b ? b : a;
}
template <typename T>
inline T min(T a, T b) {
  return b < a ? b : a;
}
// As the GPU's: the other one where one is NaN.
inline float max(float a, float b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }

struct uint3 {
  unsigned x, y, z;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(2) char2 {
  signed char x, y;
};
struct alignas(4) char4 {
  signed char x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;

// What emulator.cc does. Operations are known by their names, which all threads that meet must say.
namespace gsb {

constexpr int kWarp = 32;

[[noreturn]] void fail(const char* why);
int lane();
int lanes();  // of this thread's warp
void synchronize();
bool any_of_block(bool mine);
std::uint64_t of_lane(const char* what, std::uint64_t mine, int from);
unsigned ballot(bool mine);
void warp_max_to(unsigned* at, unsigned mine);
void multiply(const char* what, int words, int* d, const unsigned* a, const unsigned* b);
void multiply_bytes(const char* what, int* d, const unsigned* a, const unsigned* b);
void copy(void* to, const void* from);
void commit();
void wait(std::size_t pending);

template <typename T>
inline T from_lane(const char* what, T mine, int from) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof(T));
  bits = of_lane(what, bits, from);
  std::memcpy(&mine, &bits, sizeof(T));
  return mine;
}

template <typename T>
inline T exchange(T* at, T value) {
  const T before = *at;
  *at = value;
  return before;
}

// Of all threads of the warp, which must have come wherever TVM asks.
inline int source(unsigned mask, int from, int width) {
  if (mask != ~0u >> (kWarp - lanes())) fail("lanes of a warp are left out");
  const bool inside = lane() / width == from / width && from < lanes();
  return inside ? from : lane();
}

}  // namespace gsb

inline void __syncthreads() { gsb::synchronize(); }
inline float __int_as_float(int bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline unsigned __activemask() { return ~0u >> (gsb::kWarp - gsb::lanes()); }
template <typename T>
inline T __shfl_down_sync(unsigned mask, T mine, int distance, int width) {
  const int from = gsb::source(mask, gsb::lane() + distance, width);
  return gsb::from_lane("__shfl_down_sync", mine, from);
}
template <typename T>
inline T __shfl_sync(unsigned mask, T mine, int from, int width) {
  const int first = gsb::lane() / width * width;
  return gsb::from_lane("__shfl_sync", mine, gsb::source(mask, first + from % width, width));
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }

inline void gsb_mma_256(int* d, const unsigned* a, const unsigned* b) {
  gsb::multiply("gsb_mma_256", 8, d, a, b);
}
inline void gsb_mma_128(int* d, const unsigned* a, const unsigned* b) {
  gsb::multiply("gsb_mma_128", 4, d, a, b);
}
inline void gsb_mma_bytes(int* d, const unsigned* a, const unsigned* b) {
  gsb::multiply_bytes("gsb_mma_bytes", d, a, b);
}
inline void gsb_copy(void* to, const void* from) { gsb::copy(to, from); }
inline void gsb_commit() { gsb::commit(); }
template <int PENDING>
inline void gsb_wait() {
  gsb::wait(PENDING);
}
inline unsigned gsb_ballot(bool mine) { return gsb::ballot(mine); }
inline bool gsb_any_of_block(bool mine) { return gsb::any_of_block(mine); }
template <typename T>
inline T gsb_from_lane(T mine, int lane) {
  return gsb::from_lane("gsb_from_lane", mine, lane);
}
template <typename T>
inline T gsb_exchange(T mine, int distance) {
  return gsb::from_lane("gsb_exchange", mine, gsb::lane() ^ distance);
}
inline unsigned gsb_turn(unsigned row, int lane) {
  unsigned column = 0;
  for (int l = 0; l < gsb::kWarp; ++l)
    column |= (gsb::from_lane("gsb_turn", row, l) >> lane & 1) << l;
  return column;
}
inline int gsb_atomic_add(int* at, int value) { return gsb::exchange(at, *at + value); }
inline int gsb_atomic_max(int* at, int value) { return gsb::exchange(at, max(*at, value)); }
inline void gsb_warp_max_to(int* at, unsigned mine) {
  gsb::warp_max_to(reinterpret_cast<unsigned*>(at), mine);
}
inline int gsb_atomic_or(int* at, int value) { return gsb::exchange(at, *at | value); }
inline int gsb_atomic_exchange(int* at, int value) { return gsb::exchange(at, value); }
inline void gsb_fence() {}
inline float gsb_kept(float x) { return x; }
inline float gsb_round(float x) { return std::nearbyint(x); }
inline float gsb_max(float a, float b) { return a > b || a != a ? a : b; }
inline float gsb_min(float a, float b) { return a < b || a != a ? a : b; }
inline float gsb_fma(float a, float b, float c) { return std::fma(a, b, c); }

// A kernel of the source, and the number of pointers that it takes.
namespace gsb {

struct Listed {
  const char* name;
  void* target;
  int pointers;
};

template <typename... T>
inline Listed listed(const char* name, void (*target)(T*...)) {
  return {name, reinterpret_cast<void*>(target), static_cast<int>(sizeof...(T))};
}

}  // namespace gsb

// Generated code writes it where C++ has it not: between specifiers.
#define alignas(bytes) __attribute__((aligned(bytes)))
